# shellcheck shell=bash
# Sourced by the tests of the program itself. A test is a function test_*; `run_tests` runs each in a new empty folder
# (removed afterwards) and reports TAP. A test fails at the first assertion that does not hold; `skip REASON` ends it.
# lib/processes.sh adds what tests of running processes need. TEST_CASE=name runs the tests whose name holds name.
# Run by itself, this file tests itself.
set -u
tests_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../mpirun.sh
source "$tests_root/mpirun.sh"
: "${LAZYTRAIN:=$tests_root/../build/lazytrain}"
[ -x "$LAZYTRAIN" ] || {
  echo "not ok 1 - $LAZYTRAIN: no such program; build it (make) or name it in LAZYTRAIN"
  exit 1
}
# Tests compute on CPUs, where one rank and several do the same work; cuda.sh brings GPUs of its own.
export CUDA_VISIBLE_DEVICES=
# Other programs may use the cores too: ranks that wait must let the others run, or each message takes a time slice.
export OMPI_MCA_mpi_yield_when_idle=1

fail() {
  echo "# $*"
  exit 1
}

skip() {
  echo "# skip: $*"
  exit 77
}

# try COMMAND...: for tables of cases. A case that fails does not hide those after it; `all_held` ends the test, and shows
# at last what failed apart.
try() {
  ("$@") || broken=1
}
all_held() {
  local case logs=()
  wait
  for case in ../case_*/; do
    case=${case%/}
    if [ -e "$case.held" ]; then cat "$case.log"; elif [ -e "$case" ]; then logs+=("$case.log"); fi
  done
  if [ ${#logs[@]} -gt 0 ]; then
    cat "${logs[@]}"
    broken=1
  fi
  [ "${broken:-0}" -eq 0 ] || exit 1
}

# try_apart COMMAND...: the same, in a copy of this folder as it is now and beside other cases; `all_held` waits for it.
# Most of a short run is waiting: a launcher takes a second to end after a failure.
cases=0 cases_at_once=8
try_apart() {
  local case=../case_$((cases += 1))
  while [ "$(jobs -rp | wc -l)" -ge $cases_at_once ]; do wait -n; done
  cp -R . "$case"
  (cd "$case" && "$@" && : >"$case.held") >"$case.log" 2>&1 &
}

# lazytrain alone, or on R ranks; a run longer than this hangs.
lazytrain() { timeout -k 5 "${RUN_TIMEOUT:-120}" "$LAZYTRAIN" "$@"; }
ranks() {
  local count=$1
  shift
  timeout -k 5 "${RUN_TIMEOUT:-120}" "$tests_root/mpirun_ranks" "$count" "$LAZYTRAIN" "$@"
}

# train R WORD...: `lazytrain train tiny.yaml` on R ranks, 1 without a launcher; a word KEY=VALUE is set by --set.
train() {
  train_command "$@"
  timeout -k 5 "${RUN_TIMEOUT:-120}" "${command[@]}"
}
train_command() {
  local count=$1 word
  command=("$LAZYTRAIN" train tiny.yaml)
  [ "$count" -eq 1 ] || command=("$tests_root/mpirun_ranks" "$count" "${command[@]}")
  for word in "${@:2}"; do
    case $word in
      -*) command+=("$word") ;;
      *=*) command+=(--set "$word") ;;
      *) command+=("$word") ;;
    esac
  done
}

show_stderr() { tail -n 15 stderr | sed 's/^/# stderr: /'; }

# expect STATUS COMMAND...: the command's exit status; its output goes to ./stdout and ./stderr.
expect() {
  local wanted=$1 status
  shift
  "$@" >stdout 2>stderr
  status=$?
  [ $status -eq "$wanted" ] || {
    show_stderr
    fail "exit status $status, expected $wanted: $*"
  }
}

# stderr holds exactly one error line, which matches every given extended regular expression.
expect_error() {
  local pattern
  [ "$(grep -c '^lazytrain: error: ' stderr)" -eq 1 ] || {
    show_stderr
    fail "expected exactly one error line"
  }
  for pattern; do
    grep '^lazytrain: error: ' stderr | grep -qE -- "$pattern" || {
      show_stderr
      fail "the error line does not match: $pattern"
    }
  done
}

# expect_line FILE PATTERN...: FILE (stdout, stderr, ...) has a line for every extended regular expression.
expect_line() {
  local file=$1 pattern
  shift
  for pattern; do
    grep -qE -- "$pattern" "$file" || {
      tail -n 15 "$file" | sed "s|^|# $file: |"
      fail "no line of $file matches: $pattern"
    }
  done
}

# The names, kinds and contents of everything below the given folder, one a line; a test's own output left out.
contents() {
  find "$1" -mindepth 1 ! -name stdout ! -name stderr -printf '%P %y ' \( -type f -exec cksum '{}' ';' -o -printf '%l\n' \) | sort
}

# refused PATTERN... -- COMMAND...: exit status 2, one error line that matches, and nothing touched in this folder.
refused() {
  local patterns=() before
  while [ "$1" != -- ]; do
    patterns+=("$1")
    shift
  done
  shift
  before=$(contents .)
  expect 2 "$@"
  expect_error "${patterns[@]}"
  [ "$before" = "$(contents .)" ] || {
    diff <(echo "$before") <(contents .) | sed 's/^/# /'
    fail "the refused command touched files: $*"
  }
}

# Every tensor of two checkpoints has the same name, shape and bits, and both stand at the same step and sample.
same_tensors() {
  local group
  diff <(h5ls -r "$1") <(h5ls -r "$2") >h5diff.out || fail "$1 and $2 hold other tensors: $(head -2 h5diff.out)"
  for group in /params /optimizer /data; do
    h5diff "$1" "$2" $group $group >h5diff.out 2>&1 || {
      head -5 h5diff.out | sed 's/^/# /'
      fail "$group of $1 and $2 differ"
    }
  done
  [ "$(attribute "$1" step) $(attribute "$1" tokens)" = "$(attribute "$2" step) $(attribute "$2" tokens)" ] ||
    fail "step or tokens of $1 and $2 differ"
}

# An integer attribute of a checkpoint's root.
attribute() { h5dump -a "/$2" "$1" | sed -n 's/^ *(0): //p'; }

# metrics.jsonl of a folder without what the clock says.
untimed_metrics() {
  sed -E 's/,"(step_ms|tokens_per_s|tokens_per_s_per_rank|data_wait_ms|comm_wait_ms|comm_ms|slowest_rank|slowest_excess_ms|flops_utilisation)":[^,}]*//g' \
    "$1/metrics.jsonl"
}

# Two folders hold the same metrics: the same steps, each once, in order, with the same values.
same_metrics() {
  diff <(untimed_metrics "$1") <(untimed_metrics "$2") >metrics.diff || {
    head -6 metrics.diff | sed 's/^/# /'
    fail "the metrics of $1 and $2 differ"
  }
}

# expect_steps FOLDER FIRST LAST: its metrics hold the steps from FIRST to LAST, each once, in order.
expect_steps() {
  local found
  found=$(grep -v val_loss "$1/metrics.jsonl" | sed -E 's/^\{"step":([0-9]+),.*/\1/' | tr '\n' ' ')
  [ "$found" = "$(seq -s ' ' "$2" "$3") " ] || fail "$1/metrics.jsonl: steps $found, expected $2 to $3"
}

# expect_checkpoints FOLDER NAME...: the folder's checkpoints, with what stands behind their names; "1 2.damaged".
expect_checkpoints() {
  local found
  found=$(cd "$1" && find . -name 'step_*' | sed -E 's/.*step_0*([0-9]+)\.h5/\1/' | sort -n | tr '\n' ' ')
  [ "${found% }" = "${*:2}" ] || fail "$1 holds the checkpoints ${found:-none}, expected ${*:2}"
}

step_file() { printf '%s/step_%08d.h5' "$1" "$2"; }

# Writes `$1` bytes of a text that is the same every time.
write_text() {
  local i
  for i in $(seq 1 $(($1 / 20 + 1))); do
    printf 'line %d of a text: %d %d %x\n' "$i" $((i * i % 97)) $((i * 7 % 13)) $((i * 2654435761 % 65536))
  done | head -c "$1"
}

# write_shard FILE COUNT: a token shard of uint16, ids below 250; write_token FILE POSITION ID changes one.
write_shard() {
  perl -e 'my ($file, $n) = @ARGV; open my $out, ">:raw", $file or die;
    print $out pack("l<256", 20240520, 1, $n, (0) x 253), pack("S<*", map { ($_ * $_ + 7 * $_) % 250 } 1 .. $n)' "$@"
}
write_token() { patch_file "$1" $((1024 + 2 * $2)) "$(printf '%04x' "$3" | sed 's/\(..\)\(..\)/\2\1/')"; }

# patch_file FILE OFFSET HEX: puts bytes in the place of others; flip_byte FILE OFFSET inverts one.
patch_file() {
  perl -e 'my ($file, $offset, $hex) = @ARGV; open my $f, "+<:raw", $file or die; seek $f, $offset, 0;
    print $f pack("H*", $hex)' "$@"
}
flip_byte() {
  perl -e 'my ($file, $offset) = @ARGV; open my $f, "+<:raw", $file or die; seek $f, $offset, 0; read $f, my $b, 1;
    seek $f, $offset, 0; print $f ~$b' "$@"
}

# A small model on a text of its own: tiny.yaml; further keys by --set.
write_tiny_config() {
  write_text 12000 >text.txt
  cat >tiny.yaml <<'YAML'
model:
  vocab_size: 257
  hidden_size: 32
  num_layers: 2
  num_heads: 4
  num_kv_heads: 2
  intermediate_size: 48
  attention: {bias_length: 16}
data: {train: text.txt, tokenizer: bytes, seq_len: 24}
optimizer: {lr: 3e-3}
schedule: {warmup_steps: 2}
train: {steps: 12, global_batch: 8, threads: 1}
checkpoint: {dir: out, every: 100}
log: {every: 1}
YAML
}

run_tests() {
  local names name number=0 status folder
  mapfile -t names < <(declare -F | sed -n 's/^declare -f \(test_.*\)/\1/p')
  echo "1..${#names[@]}"
  for name in "${names[@]}"; do
    number=$((number + 1))
    case $name in *"${TEST_CASE:-}"*) ;; *) continue ;; esac
    folder=$(mktemp -d)
    mkdir "$folder/test"
    (cd "$folder/test" && "$name")
    status=$?
    case $status in
      0) echo "ok $number - $name" ;;
      77) echo "ok $number - $name # SKIP" ;;
      *) echo "not ok $number - $name" ;;
    esac
    rm -rf "$folder"
  done
}

# shellcheck source=lib/selftest.sh
[ "${BASH_SOURCE[0]}" != "$0" ] || source "$tests_root/cli/lib/selftest.sh"
