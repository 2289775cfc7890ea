# shellcheck shell=bash
# shellcheck disable=SC2154 # tests_root of lib.sh, started of lib/processes.sh
# Sourced after lib.sh and lib/processes.sh by tests that stop `lazytrain prepare` on its way.

# write_work BYTES: rows.jsonl of about so many bytes and rows2.jsonl.gz of a third of them, the command ($prepare) and what
# comes out of it undisturbed (whole).
write_work() {
  # shellcheck source=tokenizer.sh
  source "$tests_root/cli/lib/tokenizer.sh"
  write_tokenizer tokenizer.json
  write_text "$1" | sed 's/.*/{"text": "&"}/' >rows.jsonl
  write_text $(($1 / 3)) | sed 's/.*/{"text": "packed &"}/' | gzip -1 >rows2.jsonl.gz
  prepare=("$LAZYTRAIN" prepare --input 'rows*' --tokenizer tokenizer.json --shard-tokens 100000 --piece-bytes 200000
    --dedup exact --validation-fraction 0.1 --threads 2)
  expect 0 "${prepare[@]}" --output whole
}

has_pieces() { [ "$(find "$1/.work" -name 'piece_*' ! -name '*.partial' 2>/dev/null | wc -l)" -ge 2 ]; }

same_folder() { # folder, folder
  diff -r "$1" "$2" >folder.diff || {
    head -5 folder.diff | sed 's/^/# /'
    fail "$1 and $2 differ"
  }
}

# killed_until_done RANKS TIMES: kills the command with everything below it at random moments, TIMES times or until it is
# done, then lets it end.
killed_until_done() {
  local i below command=("${prepare[@]}" --output "out$1")
  [ "$1" -eq 1 ] || command=("$tests_root/mpirun_ranks" "$1" "${command[@]}")
  for ((i = 0; i < $2; i++)); do
    start "${command[@]}"
    sleep "0.$(printf '%03d' $((RANDOM % 600)))"
    below=$(descendants "$started")
    # shellcheck disable=SC2086 # one word a process
    kill -KILL "$started" $below 2>/dev/null
    wait "$started" 2>/dev/null
    # shellcheck disable=SC2086
    [ -z "$below" ] || await_gone $below
    [ ! -e "out$1/manifest.json" ] || break
  done
  expect 0 "${command[@]}"
  same_folder whole "out$1"
}
