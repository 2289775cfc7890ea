#!/usr/bin/env bash
# tests/gpu/run.sh, with stubs of what it runs: what it counts, what it gives to compute-sanitizer, and what it writes down.
# And make gpu-test's own programs have code for chips that are newer than the build.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# stub FILE LINE...: a program of these lines of shell.
stub() {
  mkdir -p "$(dirname "$1")"
  { echo '#!/usr/bin/env bash' && printf '%s\n' "${@:2}"; } >"$1"
  chmod +x "$1"
}

run_stubs() {
  stub build/gpu/describe "echo '\"chip\": \"stub\", \"bus\": \"0000:17:00.0\"'"
  stub build/gpu/test_small "[ -n \"\$TEST_SHARE\" ] || sleep 1.5" 'echo "ok 1 - a"' 'echo "ok 2 - b # SKIP another chip"' \
    "echo \"small \$TEST_SHARE\" >>'$PWD/ran'"
  stub build/gpu/test_ops_attention "echo 'ok 1 - a'" "echo \"attention \$TEST_SHARE\" >>'$PWD/ran'"
  stub build/gpu/test_skipped "echo 'ok 1 - a # SKIP another chip'"
  stub bin/compute-sanitizer "echo \"\$*\" >>'$PWD/sanitized'" "exec \"\${@: -1}\""
  stub bin/nvidia-smi "[[ \$* = *--id=0000:17:00.0* ]] || exit 1" \
    'case $* in *clocks.sm,clocks.mem*)' "echo \"\$((1700 + \$(wc -l <'$PWD/asked'))), 2619\"" "echo >>'$PWD/asked' ;;" \
    '*clocks.max.sm*) echo 1980 ;; *driver_version*) echo 580.1 ;; esac'
  : >asked
  PATH=$PWD/bin:$PATH expect "$1" "$tests_root/gpu/run.sh" "$PWD/build" test_small test_ops_attention test_skipped "${@:2}"
}

test_counts() {
  run_stubs 0
  expect_line stdout '^6 passed, 0 failed, 6 skipped$'
  printf '%s\n' 'small ' 'attention ' 'small 1' 'attention 16' 'small 1' 'attention 16' >expected
  cmp -s ran expected || fail "shares: $(cat ran)"
  for tool in "memcheck --report-api-errors no" racecheck; do
    [ "$(grep -c "^--tool $tool --error-exitcode 9 " sanitized)" -eq 3 ] || fail "$(cat sanitized)"
  done
  perl -MJSON::PP -e '
    my $all = decode_json(join "", <>);
    die "driver" unless $all->{driver} eq "580.1" && $all->{sm_clock_limit_mhz} eq "1980";
    die "clocks: $all->{sm_clock_mhz}" unless $all->{sm_clock_mhz} > 1700 && $all->{memory_clock_mhz} eq "2619";
    die "counts" unless $all->{passed} == 6 && $all->{failed} == 0 && $all->{skipped} == 6;
    die "results" unless @{$all->{results}} == 9 && $all->{results}[0]{skipped} == 1;
  ' build/gpu-test.json || fail "$(cat build/gpu-test.json)"
}

test_failures() {
  stub build/gpu/test_bad "echo 'ok 1 - a'" "echo 'not ok 2 - b'" 'exit 1'
  stub build/gpu/test_crash 'exit 139'
  stub build/gpu/test_mute 'exit 0'
  run_stubs 1 test_bad test_crash test_mute
  expect_line stdout '^9 passed, 9 failed, 6 skipped$'
}

test_no_gpu() {
  stub build/gpu/describe 'echo "make gpu-test needs a GPU: none" >&2' 'exit 2'
  expect 2 "$tests_root/gpu/run.sh" "$PWD/build" test_small
}

# printed by make, which compiles nothing here: $(NVCC) need not be there.
test_code_for_later_chips() {
  for name in test_instructions test_instructions_sm90; do
    make -C "$tests_root/.." --no-print-directory -n NVCC=nvcc BUILD="$PWD/none" "$PWD/none/gpu/obj/tests/emulation/$name.o" >"$name" 2>&1 ||
      fail "$(cat "$name")"
  done
  grep -q 'arch=compute_90,code=compute_90 .*test_instructions.cpp' test_instructions || fail "no PTX: $(cat test_instructions)"
  ! grep -q 'code=compute_90 .*test_instructions_sm90.cpp' test_instructions_sm90 || fail "wgmma has no PTX for later chips"
}

run_tests
