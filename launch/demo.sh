#!/usr/bin/env bash
# The demo: trains a small Lazy Attention model on text with two ranks, interrupts itself once, resumes, validates on
# the last tenth of the text and shows what came out. `make demo` calls it; `make demo TEXT=FILE` trains on FILE.
#
#   launch/demo.sh [FILE]        LAZYTRAIN may be set, and:
#   CONFIG   a config of a model of bytes (launch/demo.yaml)      DIR     where everything goes (demo)
#   SET      words KEY=VALUE that the config is changed by        RANKS   2
set -eu
cd "$(dirname "$0")/.."
source tests/mpirun.sh
lazytrain=${LAZYTRAIN:-build/lazytrain}
config=${CONFIG:-launch/demo.yaml}
ranks=${RANKS:-2}
dir=${DIR:-demo}
text=${1:-}
[ -r "$config" ] || { echo "demo: CONFIG=$config is no readable file" >&2; exit 2; }
settings=()
for word in ${SET:-}; do settings+=(--set "$word"); done
# A number of the config, or of SET, by the last part of its key.
number() { { echo "${SET:-}" | tr ' ' '\n' | sed -n "s/.*\.$1=//p"; awk -v key="$1:" '$1 == key { print $2 }' "$config"; } | head -n 1; }
steps=$(number steps)
global_batch=$(number global_batch)
seq_len=$(number seq_len)
mkdir -p "$dir"

# ---- text: the training part, and a held-out last tenth that begins with a line ----
if [ -n "$text" ]; then
  if ! [ -f "$text" ] || ! [ -r "$text" ]; then
    echo "demo: TEXT=$text is no readable file" >&2
    exit 2
  fi
  cp -- "$text" "$dir/text.txt"
  echo "demo: text: $text"
else
  xargs cat <launch/demo_text.txt >"$dir/text.txt"
  echo "demo: text: $(wc -l <launch/demo_text.txt) files of this repository (launch/demo_text.txt)"
fi
bytes=$(wc -c <"$dir/text.txt")
[ "$bytes" -ge 20000 ] || { echo "demo: the text has $bytes bytes, expected at least 20000" >&2; exit 2; }
head -c $((bytes * 9 / 10)) "$dir/text.txt" >"$dir/head.txt"
first_line=$(tail -c +$((bytes * 9 / 10 + 1)) "$dir/text.txt" | head -c 10000 | head -n 1 | wc -c)
cut=$((bytes * 9 / 10 + first_line))
head -c "$cut" "$dir/text.txt" >"$dir/train.txt"
tail -c +$((cut + 1)) "$dir/text.txt" >"$dir/validation.txt"
rm "$dir/head.txt"
echo "demo: $(wc -c <"$dir/train.txt") bytes to train on, $(wc -c <"$dir/validation.txt") held out"

# ---- what simple models reach: order 0 and order 1, counted on the training part, in bits a byte of the held-out
# part. Order 1 is smoothed by Witten and Bell's rule: (c(ab) + d(a) p(b)) / (c(a) + d(a)), d(a) successors of a.
read -r order0 order1 < <(
  { od -An -v -tu1 -w1 "$dir/train.txt"; echo end; od -An -v -tu1 -w1 "$dir/validation.txt"; } | awk '
    $1 == "end" { held_out = 1; previous = 10; next }
    !held_out { count[$1]++; total++
      if (total > 1) { if (!(previous SUBSEP $1 in pair)) successors[previous]++
        pair[previous, $1]++; context[previous]++ }
      previous = $1; next }
    { p0 = (count[$1] + 1) / (total + 256)
      d = successors[previous]
      p1 = d ? (pair[previous, $1] + d * p0) / (context[previous] + d) : p0
      bits0 -= log(p0) / log(2); bits1 -= log(p1) / log(2); seen++; previous = $1 }
    END { printf "%.4f %.4f\n", bits0 / seen, bits1 / seen }')

# ---- train, interrupt at a third, resume ----
eval_batches=$((($(wc -c <"$dir/validation.txt") / seq_len + global_batch - 1) / global_batch))
train() { # replaces the (sub)shell that calls it, so that a signal reaches mpirun
  # shellcheck disable=SC2086 # flags are words
  exec "$MPIRUN" $MPIRUN_FLAGS -n "$ranks" "$lazytrain" train "$config" "${settings[@]}" \
    --set data.train="$dir/train.txt" --set data.validation="$dir/validation.txt" --set checkpoint.dir="$dir/run" \
    --set train.eval_batches="$eval_batches"
}
metrics=$dir/run/metrics.jsonl
rm -rf "$dir/run"
echo "demo: training on $ranks ranks; a signal will interrupt it at about step $((steps / 3))"
train &
trainer=$!
trap 'kill "$trainer" 2>/dev/null || true' EXIT
until [ "$(awk -F'[:,]' '/"loss"/ { step = $2 } END { print step + 0 }' "$metrics" 2>/dev/null || echo 0)" -ge $((steps / 3)) ]; do
  kill -0 "$trainer" 2>/dev/null || break
  sleep 0.2
done
kill -USR1 "$trainer" 2>/dev/null || true
status=0
wait "$trainer" || status=$?
trap - EXIT
resumed_at=0
if [ "$status" -eq 75 ]; then
  newest=$(find "$dir/run" -name 'step_*.h5' | sort | tail -n 1)
  resumed_at=$((10#$(basename "$newest" .h5 | sed 's/step_//')))
  echo "demo: interrupted, exit status 75; resuming from $newest"
  (train)
elif [ "$status" -ne 0 ]; then
  exit "$status"
else
  echo "demo: the run was done before the signal came"
fi

# ---- what came out ----
checkpoint=$(find "$dir/run" -name 'step_*.h5' | sort | tail -n 1)
echo
launch/compare.sh "$dir/run"
echo
sed -n 's/.*"step":\([0-9]*\),.*"sparsity":\([0-9.e-]*\),"sink":\([0-9.e-]*\),.*/\1 \2 \3/p' "$metrics" | tail -n 1 |
  while read -r step sparsity sink; do
    awk -v step="$step" -v sparsity="$sparsity" -v sink="$sink" 'BEGIN {
      printf "demo: at step %d, %.1f%% of the attention weights are exactly 0; weight on the first token %.3f\n", step, 100 * sparsity, sink }'
  done
echo "demo: a sample (temperature 0.7, top-k 40):"
prompt=$(head -c 2000 "$dir/validation.txt" | grep -m 1 '[A-Za-z]' | cut -c 1-40 || true)
"$lazytrain" generate "$checkpoint" --prompt "${prompt:-The}" --max-tokens 240 --temperature 0.7 --top-k 40 --seed 1 | sed 's/^/  | /'
echo
echo "demo: checkpoint  $checkpoint   (lazytrain inspect $checkpoint)"
echo "demo: metrics     $metrics"
echo "demo: text        $dir/train.txt, held out: $dir/validation.txt"
echo "demo: held-out text: order-0 model $order0, order-1 model $order1 bits a byte; this model:"
val_loss=$(sed -n 's/.*"val_loss":\([0-9.e-]*\).*/\1/p' "$metrics" | tail -n 1)
bits=$(awk -v loss="$val_loss" 'BEGIN { printf "%.4f", loss / log(2) }')
echo "demo: val_bits_per_byte=$bits order0=$order0 order1=$order1 resumed_at=$resumed_at"
