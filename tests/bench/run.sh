#!/usr/bin/env bash
# `make bench`: every speed goal, hit or miss beside it; always ends with 0. Run it on a quiet machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
source tests/mpirun.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$build/tests/bench/bench_model" "$(nproc)"
tests/mpirun_ranks 1 "$build/tests/bench/bench_checkpoint" "$folder"
for ranks in 2 4; do tests/mpirun_ranks "$ranks" "$build/tests/bench/bench_reduce"; done
"$build/tests/bench/bench_shuffle" "$folder"

# ---- preparing 100 MB of rows, this repository's text in random pieces, with GPT-2's tokenizer where it is, else a small one ----
git ls-files '*.c' '*.h' '*.md' | xargs cat | perl -MJSON::PP=encode_json -e 'local $/; my $text = <>; srand 1;
  for (my $n = 0; $n < 1e8;) { my $row = substr $text, rand(length($text) - 9000), 200 + rand 8000;
    my $line = encode_json({text => $row}); $n += length $line; print "$line\n" }' >"$folder/rows.jsonl"
: >"$folder/empty.jsonl"
gpt2=${LAZYTRAIN_TEST_DATA:-../shared/data}/tokenizers/gpt2
tokenizer=${gpt2}_encoder.json,${gpt2}_vocab.bpe
if [ ! -e "${gpt2}_encoder.json" ]; then
  source tests/cli/lib/tokenizer.sh
  tokenizer=$folder/tokenizer.json
  write_tokenizer "$tokenizer"
fi
"$build/tests/bench/bench_prepare" "$build/lazytrain" "$tokenizer" "$folder/rows.jsonl" "$folder/prepared" "$folder/empty.jsonl"

python=${VENV:-$build/venv}/bin/python
[ -x "$python" ] || python=python3
"$python" tests/bench/tokenizer_rates.py "$build/tests/bench/bench_tokenizers"

# ---- 2 ranks x 1 thread against 1 rank x 2 threads, same micro-batch, in turn ----
for file in comm/*.c model/*.c data/*.c; do cat "$file"; done >"$folder/text.txt"
cat >"$folder/bench.yaml" <<YAML
model: {vocab_size: 4096, hidden_size: 384, num_layers: 6, num_heads: 6, intermediate_size: 1024}
data: {train: $folder/text.txt, tokenizer: bytes, seq_len: 256}
optimizer: {lr: 1.0e-3}
train: {steps: 9, global_batch: 8, micro_batch: 4}
log: {every: 8}
YAML
speed() { # ranks, threads: tokens a second of steps 2 to 8; also keeps when the first step began
  rm -rf "$folder/run"
  tests/mpirun_ranks "$1" "$build/lazytrain" train "$folder/bench.yaml" --set checkpoint.dir="$folder/run" \
    --set checkpoint.every=100 --set train.threads="$2" 2>"$folder/log" || cat "$folder/log" >&2
  sed -n 's/.*first step began \([0-9.]*\) s .*/\1/p' "$folder/log" >>"$folder/starts"
  sed -n 's/.*"step":8,.*"tokens_per_s":\([0-9.]*\),.*/\1/p' "$folder/run/metrics.jsonl"
}
for _ in 1 2 3 4 5; do echo "$(speed 2 1) $(speed 1 2)"; done | awk 'NF == 2 { printf "%.4f\n", $1 / $2 }' | sort -n |
  awk '{ ratio[NR] = $1 } END { m = ratio[int((NR + 1) / 2)]
    printf "2 ranks x 1 thread / 1 rank x 2 threads: median %.3f of %d pairs  goal 0.90: %s\n", m, NR, (m >= 0.9 ? "hit" : "miss") }'
sort -n "$folder/starts" | awk '{ s[NR] = $1 } END { m = s[int((NR + 1) / 2)]
  printf "start to first step: median %.2f s  goal 1.00: %s\n", m, (m < 1 ? "hit" : "miss") }'
source tests/bench/data_wait.sh
exit 0
