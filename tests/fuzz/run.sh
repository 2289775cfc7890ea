#!/usr/bin/env bash
# Fuzzes the reading of checkpoints, documents and tokenizers. Usage: tests/fuzz/run.sh BUILD
#
# FUZZ_SECONDS: how long each target runs (60), side by side; FUZZ_SEED: what is drawn from it (random, and printed).
# What was learned stays in BUILD/fuzz/*.corpus, for the next time; the input that broke something in BUILD/fuzz/*-crash-*
# and the like: `FUZZ_CHECKPOINT=... FUZZ_CORPUS=/tmp BUILD/fuzz/TARGET INPUT` does it again.
set -u
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
build=$(cd "$1" && pwd)/fuzz
: "${FUZZ_SECONDS:=60}" "${FUZZ_SEED:=$RANDOM}"
venv=${VENV:-build/venv}
case $venv in /*) ;; *) venv=$(cd "$tests_root/.." && pwd)/$venv ;; esac
export FUZZ_CHECKPOINT=$build/out/step_00000001.h5

write_checkpoint() {
  write_tiny_config
  sed -i 's/^  hidden_size: .*/  hidden_size: 8/; s/num_layers: 2/num_layers: 1/; s/vocab_size: 257/vocab_size: 300/
    s/warmup_steps: 2/warmup_steps: 0/; s/num_heads: 4/num_heads: 2/; s/num_kv_heads: 2/num_kv_heads: 1/; s/intermediate_size: 48/intermediate_size: 8/' tiny.yaml
  rm -rf out
  expect 0 train 1 train.steps=1
}

# What fuzz_parquet changes: small files of all kinds of strings, codecs and encodings. 1: there is no pyarrow.
write_parquet() {
  rm -rf parquet
  mkdir parquet
  "$venv/bin/python" -c 'import pyarrow' 2>/dev/null || return
  "$venv/bin/python" "$tests_root/unit/write_parquet.py" parquet || return 2
  cp "${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}"/parquet-*/*.parquet parquet 2>/dev/null
  rm -f parquet/large_*
  find parquet -name '*.parquet' -size +96k -exec rm -f '{}' +
}

# fuzz TARGET OPTION...
fuzz() {
  mkdir -p "$1.corpus"
  FUZZ_CORPUS=$PWD/$1.corpus ./"$1" -seed="$FUZZ_SEED" -max_total_time="$FUZZ_SECONDS" -timeout=60 -rss_limit_mb=4096 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="$1-" "${@:2}" "$1.corpus" >"$1.log" 2>&1
}

# What came out of it; the sanitizer's report where it broke.
report() { # target, exit status
  if [ "$2" -eq 0 ]; then
    echo "ok - $1"
    passed=$((passed + 1))
  else
    tail -n 40 "$1.log"
    echo "not ok - $1: exit status $2; the input is in $(echo "$build/$1"-*-* | tr ' ' '\n' | tail -n 1)"
    failed=$((failed + 1))
  fi
  echo "# fuzz: $1: $(sed -n 's/^# fuzz: //p' "$1.log"), $(sed -n 's/^stat::new_units_added: *//p' "$1.log") new paths"
}

passed=0 failed=0 skipped=0
cd "$build" || exit 1
(write_checkpoint) || exit 1
echo "# fuzz: $FUZZ_SECONDS s, FUZZ_SEED=$FUZZ_SEED"
rm -f fuzz_*-*
fuzz fuzz_answer -max_len=32768 &
answer=$!
fuzz fuzz_file -max_len=257 &
file=$!
fuzz fuzz_documents -max_len=16384 &
documents=$!
write_parquet
written=$?
parquet=
if [ $written -ne 1 ]; then
  FUZZ_PARQUET=$PWD/parquet LAZYTRAIN_PLUGINS=${build%/fuzz}/plugins fuzz fuzz_parquet -max_len=65 &
  parquet=$!
fi
fuzz fuzz_tokenizer -max_len=16384 &
tokenizer=$!
wait $answer
report fuzz_answer $?
wait $file
report fuzz_file $?
wait $documents
report fuzz_documents $?
wait $tokenizer
report fuzz_tokenizer $?
if [ -n "$parquet" ]; then
  wait $parquet
  report fuzz_parquet $?
else
  echo "ok - fuzz_parquet # SKIP no pyarrow in $venv; \`make deps\` installs it"
  skipped=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
