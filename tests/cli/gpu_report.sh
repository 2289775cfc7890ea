#!/usr/bin/env bash
# No kernel of model/cuda spills registers, on any chip that it is built for.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

test_no_kernel_spills() {
  local logs=("$(dirname "$LAZYTRAIN")"/obj/model/cuda/*.ptxas) chip
  [ -e "${logs[0]}" ] || skip "this build has no nvcc"
  "$tests_root/gpu/report.sh" "${logs[@]}" >report || {
    sed 's/^/# /' report
    fail "a kernel spills registers"
  }
  for chip in sm_80 sm_90a; do
    grep -q "^$chip .* attention_general .*forward" report || fail "the report lacks $chip: $(head -n 3 report)"
  done
}

# ptxas's words for a kernel that spills: the report fails, and says which.
test_a_spill_is_seen() {
  cat >spilling.cuda.ptxas <<'END'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4goodPf' for 'sm_80'
ptxas info    : Function properties for _Z4goodPf
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 576 bytes cmem[0]
ptxas info    : Compiling entry function '_Z3badPf' for 'sm_90a'
ptxas info    : Function properties for _Z3badPf
    48 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
END
  ! "$tests_root/gpu/report.sh" spilling.cuda.ptxas >report || fail "a spill passed"
  grep -qE '^sm_80 +40 +512 +16 +0 +spilling +(good|_Z4good)' report || fail "a kernel is reported wrongly: $(cat report)"
  grep -qE '^sm_90a +255 +0 +48 +20 +spilling +(bad|_Z3bad)' report || fail "a kernel is reported wrongly: $(cat report)"
  grep -qx '2 kernels, 1 with spills' report || fail "the count is wrong"
}

run_tests
