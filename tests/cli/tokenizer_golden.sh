#!/usr/bin/env bash
# Ids and texts of published tokenizers as the reference implementations gave them (tests/golden/tokenizers.json);
# tests/slow/tokenizers.sh asks the implementations themselves.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}
encode=${TEST_BUILD:-$tests_root/../build}/tests/tools/encode

# golden NAME: the tokenizers whose name holds NAME, on all texts.
golden() {
  [ -d "$data/tokenizers" ] || skip "no $data/tokenizers"
  expect 0 env DATA="$data" TOKENIZER="$1" /usr/bin/python3 "$tests_root/reference/tokenizer_golden.py" --golden "$encode"
  grep -q ': the same$' stdout || fail "nothing was compared"
}

test_sentencepiece() { golden .model; }
test_tokenizer_json() { golden hf_; }
test_gpt2() { golden gpt2; }

run_tests
