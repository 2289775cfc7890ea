#!/usr/bin/env bash
# No kernel of model/cuda spills registers, on any chip that it is built for; and those of attention take the registers and
# the shared memory that the head of their file says.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
sources=("$tests_root"/../model/cuda/{attention,attention_general,lazy_attention_*}.cu)

# figures REPORT SOURCE...: what these say otherwise than the report. A source's table has, for each of its kernels,
# registers for sm_80 and for sm_90a (-: not built for it) and bytes of shared memory; a release before it, whose
# registers they are. What a launch asks for is checked by the compiler: takes_bytes() of head sizes 64, 96 and 128.
# RELEASE: of this build; figures of registers from another are not compared.
figures() {
  awk -v release="$RELEASE" '
    FNR == NR && /^sm_/ {
      name = substr($0, index($0, " " $6 " ") + length($6) + 1)
      sub(/^ +(void )?(\(anonymous namespace\)::)?/, "", name)
      sub(/\(.*/, "", name)
      registers[$6, name, $1] = $2
      static[$6, name] = $3
      if ($6 ~ /^(lazy_)?attention/) kernels[$6, name]
    }
    FNR == NR { next }
    FNR == 1 {
      file = FILENAME
      sub(/.*\//, "", file)
      sub(/\.cu$/, "", file)
      same = 0
    }
    /^ \* ptxas of CUDA / { same = $5 == release "," }
    match($0, /^ \*   [a-z_]+(<[^>]*>)? +([0-9]+|-) +([0-9]+|-) +[0-9]+$/) {
      row = substr($0, 6)
      bytes[file, name = row_name(row)] = $NF
      seen[file, name] = 1
      compare(file, name, "sm_80", $(NF - 2))
      compare(file, name, "sm_90a", $(NF - 1))
    }
    /^static_assert\(takes_bytes</ {
      split($0, part, /[(,)]/)
      for (i = 0; i < 3; i++) dynamic[file, 64 + 32 * i] = part[3 + i] + 0
    }
    function row_name(row) {
      sub(/ +[0-9-]+ +[0-9-]+ +[0-9]+$/, "", row)
      return row
    }
    function compare(file, name, chip, stated) {
      found = (file, name, chip) in registers ? registers[file, name, chip] : "-"
      if (same && found != stated) print file ": " name " takes " found " registers on " chip ", not " stated
    }
    END {
      for (key in kernels) {
        split(key, part, SUBSEP)
        size = match(part[2], /<[0-9]+/) ? substr(part[2], RSTART + 1, RLENGTH - 1) : 0
        takes = static[key] + dynamic[part[1], size]
        if (!(key in seen)) print part[1] ": no figures of " part[2]
        else if (takes != bytes[key]) print part[1] ": " part[2] " takes " takes " bytes, not " bytes[key]
      }
      for (key in seen)
        if (!(key in kernels)) {
          split(key, part, SUBSEP)
          print part[1] ": figures of no kernel: " part[2]
        }
    }' "$@"
}

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

test_figures() {
  local logs=("$(dirname "$LAZYTRAIN")"/obj/model/cuda/*.ptxas)
  [ -e "${logs[0]}" ] || skip "this build has no nvcc"
  command -v c++filt >/dev/null || skip "there is no c++filt to read kernels' names"
  "$tests_root/gpu/report.sh" "${logs[@]}" >report || :
  RELEASE=$(sed -n 's/.* release \([0-9.]*\),.*/\1/p' "${logs[@]}" | sort -u)
  grep -q "^ \* ptxas of CUDA $RELEASE," "${sources[@]}" ||
    echo "# figures of registers are not those of CUDA $RELEASE, by which this is built: not compared"
  figures report "${sources[@]}" >differing
  [ ! -s differing ] || fail "$(cat differing)"
}

# A file that says three things wrongly, and one of them of another release.
test_wrong_figures_are_seen() {
  cat >report <<'END'
chip     registers    shared   stack  spills  file                       kernel
sm_80           40       512       0       0  attention_good             sum(attention_job)
sm_80          190         0       0       0  attention_bad              void (anonymous namespace)::go<64, true>(attention_job)
sm_90a         188         0       0       0  attention_bad              void (anonymous namespace)::go<64, true>(attention_job)
sm_80           20         0       0       0  attention_bad              left_out(attention_job)
5 kernels, 0 with spills
END
  cat >attention_good.cu <<'END'
 * ptxas of CUDA 13.0, none spilled: registers
 *   sum   40  -  512
END
  cat >attention_bad.cu <<'END'
 * ptxas of CUDA 13.0, none spilled: registers
 *   go<64, true>   190  189  1000
 *   gone<64>       190  189  1000
static_assert(takes_bytes<shared>(1024, 0, 0));
END
  RELEASE=13.0 figures report attention_good.cu attention_bad.cu | sort >differing
  cat >expected <<'END'
attention_bad: figures of no kernel: gone<64>
attention_bad: go<64, true> takes 1024 bytes, not 1000
attention_bad: go<64, true> takes 188 registers on sm_90a, not 189
attention_bad: gone<64> takes - registers on sm_80, not 190
attention_bad: gone<64> takes - registers on sm_90a, not 189
attention_bad: no figures of left_out
END
  sort -o expected expected
  cmp -s differing expected || fail "$(diff differing expected)"
  RELEASE=13.1 figures report attention_good.cu attention_bad.cu | grep -q registers && fail "another release's were compared"
  return 0
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
