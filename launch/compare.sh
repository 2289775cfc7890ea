#!/usr/bin/env bash
# Shows runs side by side from their own files: the curves of the training loss in one plot, the validation losses, and a
# table of where each run stands. A validation loss is given in bits a token (of a model of bytes: bits a byte).
#
#   launch/compare.sh RUN...        RUN is a folder that holds metrics.jsonl; A is the first one's mark, + where marks meet
set -eu -o pipefail
[ $# -gt 0 ] || { echo "usage: launch/compare.sh RUN..." >&2; exit 2; }
files=()
for run; do
  [ -r "$run/metrics.jsonl" ] || { echo "compare: $run holds no metrics.jsonl" >&2; exit 2; }
  files+=("$run/metrics.jsonl")
done

# key(): the number behind a key of this line of metrics, or the empty string. mark: of the file that is being read.
# shellcheck disable=SC2016 # awk expands
common='
function key(name) {
  return match($0, "\"" name "\":[-0-9.e+]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) + 0 : "" }
FNR == 1 { runs++; mark = ARGC > 2 ? sprintf("%c", 64 + runs) : "*" }'

echo "training loss, nats a token"
awk -v width=64 -v height=12 "$common"'
  key("loss") != "" {
    step[++n] = key("step"); loss[n] = key("loss"); marks[n] = mark
    if (n == 1 || loss[n] < low) low = loss[n]
    if (n == 1 || loss[n] > high) high = loss[n]
    if (step[n] > last) last = step[n] }
  END {
    for (i = 1; i <= n; i++) {
      column = int((step[i] - 1) / last * width)
      row = int((high - loss[i]) / (high - low + 1e-9) * (height - 1) + 0.5)
      old = grid[row, column]
      grid[row, column] = old == "" || old == marks[i] ? marks[i] : "+" }
    for (row = 0; row < height; row++) {
      line = sprintf("%6.2f |", high - row * (high - low) / (height - 1))
      for (column = 0; column < width; column++) line = line (grid[row, column] == "" ? " " : grid[row, column])
      sub(/ +$/, "", line)
      print line }
    printf "       +"
    for (column = 0; column < width; column++) printf "-"
    printf "\n        1%*s\n", width - 1, last }' "${files[@]}"

awk "$common"'
  key("val_loss") != "" {
    if (!(key("step") in seen)) { seen[key("step")]; steps[++n] = key("step") }
    bits[runs, key("step")] = sprintf("%.4f", key("val_loss") / log(2)) }
  END {
    if (!n) exit
    printf "\nvalidation, bits a token\n%8s", "step"
    for (run = 1; run <= runs; run++) printf "%9s", (ARGC > 2 ? sprintf("%c", 64 + run) : "*")
    print ""
    for (i = 1; i <= n; i++) {
      printf "%8s", steps[i]
      for (run = 1; run <= runs; run++) printf "%9s", (run SUBSEP steps[i]) in bits ? bits[run, steps[i]] : "-"
      print "" } }' "${files[@]}"

echo
awk "$common"'
  function show() {
    printf "%-4s %-20s %6s %8s %7s %10s %9s %6s\n", now, name, steps, tokens, loss, validation, sparsity, sink }
  BEGIN { now = "mark"; name = "run"; steps = "steps"; tokens = "tokens"; loss = "loss"; validation = "validation"
    sparsity = "sparsity"; sink = "sink" }
  FNR == 1 { show(); now = mark; name = FILENAME; sub("/metrics.jsonl$", "", name); validation = sparsity = sink = "-" }
  key("loss") != "" { steps = key("step"); tokens = sprintf("%.2fM", key("tokens") / 1e6); loss = sprintf("%.4f", key("loss")) }
  key("val_loss") != "" { validation = sprintf("%.4f", key("val_loss") / log(2)) }
  key("sparsity") != "" { sparsity = sprintf("%.1f %%", 100 * key("sparsity")); sink = sprintf("%.3f", key("sink")) }
  END { show() }' "${files[@]}"
