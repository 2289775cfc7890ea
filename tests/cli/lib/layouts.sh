# shellcheck shell=bash
# Sourced after lib.sh by tests of runs in several layouts: data ranks x tensor ranks x zero, written RANKSxWIDTHxZERO, so
# that 4x2x1 is two data ranks of two tensor ranks with parallel.zero 1.

# Eight ranks keep two cores busy, and Open MPI's launcher may take ranks that ended in time for crashed ones when it hardly
# gets to run.
# shellcheck disable=SC2034 # of lib.sh
cases_at_once=2

# Nothing divides by the widths: the vocabulary, the samples' length, and (at width 4) the key heads.
write_odd_config() {
  write_tiny_config
  sed -i 's/seq_len: 24/seq_len: 23/' tiny.yaml
}

ranks_of() { echo "${1%%x*}"; }
width_of() { local rest=${1#*x} && echo "${rest%%x*}"; }

# lay LAYOUT FOLDER WORD...: `train` in this layout; checkpoint.dir is FOLDER.
lay() {
  train "$(ranks_of "$1")" "parallel.tensor=$(width_of "$1")" "parallel.zero=${1##*x}" "checkpoint.dir=$2" "${@:3}"
}

# numbers FOLDER KEY: the values of a key of its metrics, a line each.
numbers() { sed -nE "s/.*[{,]\"$2\":(-?[0-9.e+-]+)[,}].*/\1/p" "$1/metrics.jsonl"; }

# near A B KEY RELATIVE: two folders have as many values of a key, which differ by no more than this part of them.
near() {
  [ "$(numbers "$1" "$3" | wc -l)" -gt 0 ] || fail "$1 has no $3"
  paste <(numbers "$1" "$3") <(numbers "$2" "$3") | awk -v most="$4" '
    NF != 2 { print "line " NR ": " $0; exit 1 }
    { d = ($1 - $2) / ($1 == 0 ? 1 : $1); if (d < 0) d = -d; if (d > most) { print "line " NR ": " $0; exit 1 } }' >near.out ||
    fail "$3 of $1 and $2 differ by more than $4: $(cat near.out)"
}

# same_run A B STEP: the same metrics and tensors.
same_run() {
  same_metrics "$1" "$2"
  same_tensors "$(step_file "$1" "$3")" "$(step_file "$2" "$3")"
}
