#!/usr/bin/env bash
# The formulas of comm/COSTS.md against what the ranks of real runs send: bytes and messages of a step, all ranks together.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lib/layouts.sh
source "$(dirname "$0")/lib/layouts.sh"

# sent LAYOUT STEPS FILE RECOMPUTE: "MESSAGES BYTES" of a run, summed over its ranks.
sent() {
  rm -rf out sent.*
  LAZYTRAIN=$PWD/counted expect 0 lay "$1" out train.steps="$2" schedule.decay_steps=100 train.recompute="$4"
  cat sent.* | awk '{ m += $1; b += $2 } END { printf "%d %d\n", m, b }' >"$3"
}

# costs LAYOUT [RECOMPUTE]: one step more of a run.
costs() {
  local again=${2:-none}
  sent "$1" 2 before "$again"
  sent "$1" 3 after "$again"
  paste before after | awk '{ print $3 - $1, $4 - $2 }' >measured
  awk -v ranks="$(ranks_of "$1")" -v n="$(width_of "$1")" -v zero="${1##*x}" -v again="$again" -f formulas.awk >expected
  cmp -s measured expected || fail "a step of $1, recompute $again, sends $(cat measured) (messages, bytes), expected $(cat expected)"
}

# The tiny model, with sizes that divide by all layouts here; C, H, Hkv, D, F, L, V, W as in COSTS.md.
write_counted() {
  write_tiny_config
  sed -i 's/vocab_size: 257/vocab_size: 264/; s/global_batch: 8/global_batch: 8, micro_batch: 2/; s/every: 1}/every: 1000}/' tiny.yaml
  "${MPICC:-mpicc}" -shared -fPIC -o count.so "$tests_root/cli/lib/count_messages.c" || fail "lib/count_messages.c cannot be built"
  cat >counted <<SCRIPT
#!/bin/sh
LD_PRELOAD='$PWD/count.so' exec '$LAZYTRAIN' "\$@"
SCRIPT
  chmod +x counted
  cat >formulas.awk <<'AWK'
function levels(r) { return r == 1 ? 0 : 1 + levels(r / 2) }
function ceiling(x) { return int(x) < x ? int(x) + 1 : x }
BEGIN {
  C = 32; H = 4; Hkv = 2; D = 8; F = 48; L = 2; V = 264; W = 16; T = 24; B = 8; b = 2
  r = ranks / n; k = levels(r); batches = B / b; rows = b * T
  kv = Hkv > n ? Hkv / n : 1
  layer = (2 * H / n + 2 * kv) * D * C + H / n * (W + 1) + 3 * F / n * C + 2 * C
  P = 2 * V / n * C + L * layer + C
  parameters = 3 + L * 11
  # parameters that several ranks of a group hold
  copied = (2 * L + 1) * C + (Hkv < n ? L * 2 * kv * D * C : 0)

  # data ranks: n trees, of one bucket, or one a share
  if (zero == 0) { bytes = n * 4 * 2 * (r - 1) * P; messages = n * r * 2 * k }
  else {
    bytes = n * 4 * ((r - 1) * P + (k - 1) * P / 2 + (r - 1) * P)
    halving = r * (k - 1) + r / 2; gathering = r / 2 - 1
    messages = n * (r * (halving + gathering) + r * k)
  }
  # losses; with zero the square sums too, one a piece of 32768 elements of a parameter
  bytes += n * r * k * 8 * (1 + (zero && r > 1 ? parameters : 0))
  messages += n * r * k * (1 + (zero && r > 1 ? 1 : 0))

  if (n > 1) {
    exchanges = 10 * L + 4 + (L - 1) * (again == "full" ? 3 : again == "attention" ? 1 : 0)
    bytes += batches * (n - 1) * 4 * rows * C * exchanges
    messages += batches * n * (n - 1) * exchanges
    bytes += batches * n * (n - 1) * 24 * rows
    messages += batches * n * (n - 1)
    bytes += (zero ? 1 : r) * n * (n - 1) * 4 * copied
    bytes += r * n * (n - 1) * 8 * parameters
    messages += r * n * (n - 1) * (1 + ceiling(copied / (rows * C / n)))
  }
  print messages, bytes
}
AWK
}

test_bytes_and_messages_of_a_step() {
  write_counted
  local layout again
  for layout in 4x1x0 2x1x1 4x1x1 4x4x0 4x2x0 4x2x1; do try costs "$layout"; done
  for again in attention full; do try costs 2x2x0 $again; done
  all_held
}

run_tests
