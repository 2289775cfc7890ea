# Sourced by the tests of the program itself. A test is a function test_*; `run_tests` runs each in a new empty folder
# (removed afterwards) and reports TAP. A test fails at the first assertion that does not hold; `skip REASON` ends it.
set -u
tests_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$tests_root/mpirun.sh"
: "${LAZYTRAIN:=$tests_root/../build/lazytrain}"
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}

fail() {
  echo "# $*"
  exit 1
}

skip() {
  echo "# skip: $*"
  exit 77
}

# lazytrain alone, or on R ranks; a run longer than a minute or so hangs.
lazytrain() { timeout -k 5 "${RUN_TIMEOUT:-120}" "$LAZYTRAIN" "$@"; }
ranks() {
  local count=$1
  shift
  timeout -k 5 "${RUN_TIMEOUT:-120}" "$tests_root/mpirun_ranks" "$count" "$LAZYTRAIN" "$@"
}

# expect STATUS COMMAND...: the command's exit status; its output goes to ./stdout and ./stderr.
expect() {
  local wanted=$1 status
  shift
  "$@" >stdout 2>stderr
  status=$?
  [ $status -eq "$wanted" ] || {
    sed 's/^/# stderr: /' stderr
    fail "exit status $status, expected $wanted: $*"
  }
}

# stderr holds exactly one error line, which matches every given extended regular expression.
expect_error() {
  local pattern
  [ "$(grep -c '^lazytrain: error: ' stderr)" -eq 1 ] || {
    sed 's/^/# stderr: /' stderr
    fail "expected exactly one error line"
  }
  for pattern; do
    grep '^lazytrain: error: ' stderr | grep -qE -- "$pattern" || {
      sed 's/^/# stderr: /' stderr
      fail "the error line does not match: $pattern"
    }
  done
}

# Every tensor of two checkpoints has the same bits.
same_tensors() {
  for group in /params /optimizer/m /optimizer/v; do
    h5diff "$1" "$2" $group $group >h5diff.out 2>&1 || {
      head -5 h5diff.out | sed 's/^/# /'
      fail "$group of $1 and $2 differ"
    }
  done
}

# A small model on a text of its own: tiny.yaml; further keys by --set.
write_tiny_config() {
  local i
  for i in $(seq 1 400); do printf 'line %d of a text: %d %d %x\n' "$i" $((i * i % 97)) $((i * 7 % 13)) $((i * 2654435761 % 65536)); done >text.txt
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
    folder=$(mktemp -d)
    (cd "$folder" && "$name")
    status=$?
    case $status in
      0) echo "ok $number - $name" ;;
      77) echo "ok $number - $name # SKIP" ;;
      *) echo "not ok $number - $name" ;;
    esac
    rm -rf "$folder"
  done
}
