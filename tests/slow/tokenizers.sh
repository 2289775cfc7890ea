#!/usr/bin/env bash
# Ids and texts of published tokenizers beside those of the packages `sentencepiece` and `tokenizers`, id by id.
# shellcheck source=../cli/lib.sh
source "$(dirname "$0")/../cli/lib.sh"
data=${LAZYTRAIN_TEST_DATA:-$tests_root/../../shared/data}
encode=${TEST_BUILD:-$tests_root/../build}/tests/tools/encode
venv=${VENV:-build/venv}
case $venv in /*) ;; *) venv=$tests_root/../$venv ;; esac

test_packages() {
  [ -d "$data/tokenizers" ] || skip "no $data/tokenizers"
  "$venv/bin/python" -c 'import sentencepiece, tokenizers' 2>import.log ||
    skip "the packages sentencepiece and tokenizers cannot be imported in $venv: $(tail -n 1 import.log)"
  expect 0 env DATA="$data" "$venv/bin/python" "$tests_root/reference/tokenizer_golden.py" --check "$encode"
  [ "$(grep -c ': the same$' stdout)" -eq 7 ] || fail "not all were compared"
}

run_tests
