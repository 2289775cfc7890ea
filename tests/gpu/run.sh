#!/usr/bin/env bash
# Runs what make gpu-test built on the first GPU: tests/gpu/run.sh BUILD PROGRAM...
# Prints the programs' TAP and at last `N passed, N failed, N skipped`; BUILD/gpu-test.json says the same with the chip,
# its driver and clocks. Exit 2, with one line: there is no GPU. Then compute-sanitizer's memcheck and racecheck, where it
# is: over all tests of a program, but one of SANITIZE_SHARE (16) of attention's tables; calls that fail on purpose are the
# tests' affair. Clocks are the greatest that were seen while the programs ran.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1
build=$1
shift
chip=$("$build/gpu/describe") || exit 2
logs=$build/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 results=

# run NAME LIMIT COMMAND...: counts the TAP that it prints; one that fails without saying which test did is one failure.
run() {
  local name=$1 limit=$2 log=$logs/gpu_${1// /_}.log status begin=$SECONDS ok bad left_out
  shift 2
  echo "# ---- $name"
  timeout -k 5 "$limit" "$@" 2>&1 </dev/null | tee "$log"
  status=$?
  left_out=$(grep -cE '^ok .*# SKIP' "$log")
  ok=$(($(grep -c '^ok ' "$log") - left_out))
  bad=$(grep -c '^not ok ' "$log")
  if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then
    bad=1
    echo "not ok - $name: exit status $status"
  elif [ $((ok + bad + left_out)) -eq 0 ]; then
    bad=1
    echo "not ok - $name reported no test"
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left_out))
  results+="${results:+,}"$'\n'"    {\"name\": \"$name\", \"passed\": $ok, \"failed\": $bad, \"skipped\": $left_out, \"seconds\": $((SECONDS - begin))}"
}

# skip NAME REASON
skip() {
  echo "ok - $1 # SKIP $2"
  skipped=$((skipped + 1))
  results+="${results:+,}"$'\n'"    {\"name\": \"$1\", \"skipped\": \"$2\"}"
}

# ask FIELD...: what nvidia-smi says of this GPU, or nothing.
bus=$(sed -n 's/.*"bus": "\([^"]*\)".*/\1/p' <<<"$chip")
ask() { nvidia-smi --id="$bus" --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null; }
# sm_clock and memory_clock, in MHz: an idle GPU's say nothing.
while ask clocks.sm,clocks.mem; do sleep 1; done >"$logs/gpu_clocks" &
watching=$!
trap 'kill $watching 2>/dev/null' EXIT
clock() { cut -d, -f"$1" "$logs/gpu_clocks" | sort -n | tail -n 1 | tr -d ' '; }

for program; do run "$program" "${TEST_TIMEOUT:-300}" "$build/gpu/$program"; done
kill $watching 2>/dev/null
wait $watching
trap - EXIT

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in "memcheck --report-api-errors no" racecheck; do
  for program; do
    if [ -z "$sanitizer" ]; then
      skip "${tool%% *}" "compute-sanitizer is not here"
      break
    fi
    [ "$program" != test_losses ] || continue # the same operations as test_step's, 150 times
    share=1
    [[ $program != test_ops_attention* ]] || share=${SANITIZE_SHARE:-16}
    # shellcheck disable=SC2086 # a tool and its options
    TEST_SHARE=$share run "${tool%% *} $program" "${SANITIZE_TIMEOUT:-1200}" \
      "$sanitizer" --tool $tool --error-exitcode 9 "$build/gpu/$program"
  done
done

cat >"$build/gpu-test.json" <<END
{
  $chip,
  "driver": "$(ask driver_version)", "sm_clock_mhz": "$(clock 1)", "sm_clock_limit_mhz": "$(ask clocks.max.sm)",
  "memory_clock_mhz": "$(clock 2)",
  "commit": "$(git rev-parse --short=12 HEAD 2>/dev/null)",
  "results": [$results
  ],
  "passed": $passed, "failed": $failed, "skipped": $skipped
}
END
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
