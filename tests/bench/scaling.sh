#!/usr/bin/env bash
# `make bench-scaling`: training on two ranks, on this host and on two hosts (networks of this machine, their link unlimited
# and at 1 Gbit/s), against one rank that has both cores. Each configuration runs a few steps, all in turn, ROUNDS times
# over; medians of the steps after the first. Run it on a quiet machine: two cores for ROUNDS * 2 minutes.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=../cli/lib.sh
source tests/cli/lib.sh
# shellcheck source=../fault/lib/hosts.sh
source tests/fault/lib/hosts.sh
: "${ROUNDS:=2}"
LAZYTRAIN=$(realpath "$LAZYTRAIN")
root=$PWD folder=$(mktemp -d)
trap 'end_hosts; rm -rf "$folder"' EXIT
hosts=()
cat comm/*.c model/*.c data/*.c >"$folder/text.txt"
cd "$folder" || exit 1
cat >bench.yaml <<'YAML'
model: {vocab_size: 4096, hidden_size: 384, num_layers: 6, num_heads: 6, intermediate_size: 1024}
data: {train: text.txt, tokenizer: bytes, seq_len: 256}
optimizer: {lr: 1.0e-3}
train: {steps: 4, global_batch: 4, micro_batch: 2}
checkpoint: {dir: run}
log: {every: 1}
YAML

# measure WHERE RANKS TENSOR ZERO BATCH: the steps' lines of metrics go to `samples`, after these words.
measure() {
  local command=("$LAZYTRAIN" train bench.yaml --set train.threads=$((2 / $2)) --set parallel.tensor="$3"
    --set parallel.zero="$4" --set train.global_batch="$5")
  rm -rf run
  case $1 in
    host) command=("$root/tests/mpirun_ranks" "$2" "${command[@]}") ;;
    *) limit_cable "$1" && spread_over_hosts "$2" "${command[@]}" ;;
  esac
  timeout -k 5 120 "${command[@]}" >stdout 2>stderr
  if grep -q '^{"step":4,' run/metrics.jsonl 2>/dev/null; then
    sed "1d; s/^/$* /" run/metrics.jsonl >>samples
  else
    echo "$*: $(grep -m 1 '^lazytrain: error: ' stderr || tail -n 1 stderr)"
  fi
}

places=(host)
if ! start_hosts; then
  echo "two hosts cannot be had here: $reason"
elif ! limit_cable 1gbit 2>tc.log; then
  echo "no limit of the link: $(tail -n 1 tc.log)"
  places+=(none)
else
  places+=(none 1gbit)
fi
: >samples
for _ in $(seq "$ROUNDS"); do
  for batch in 4 8; do
    measure host 1 1 0 4
    for layout in '1 0' '1 1' '2 0'; do
      # shellcheck disable=SC2086 # two words
      for place in "${places[@]}"; do measure "$place" 2 $layout "$batch"; done
    done
  done
done

perl -MJSON::PP -e '
  my (%values, @order);
  while (<>) {
    my ($words, $line) = /^([^{]*) (\{.*)$/ or next;
    push @order, $words unless $values{$words};
    my $metrics = decode_json $line;
    push @{$values{$words}{$_}}, $metrics->{$_} for keys %$metrics;
  }
  sub median { my @sorted = sort { $a <=> $b } @{$values{$_[0]}{$_[1]} // []}; $sorted[@sorted / 2] }
  sub share { $_[1] ? sprintf("%.2f", $_[0] / $_[1]) : "-" }
  my %names = (host => "one host", none => "two hosts", "1gbit" => "two hosts, 1 Gbit/s");
  my $one = median("host 1 1 0 4", "tokens_per_s");
  for my $batch (4, 8) {
    printf "%s scaling: %d sequences of 256 tokens a step, 2 ranks x 1 thread; 1 rank x 2 threads has %d tokens/s with 4\n",
      $batch == 4 ? "strong" : "weak", $batch, $one // 0;
    printf "  %-20s %6s %4s %8s %7s %8s  %8s %9s %9s %8s %7s\n", "", "tensor", "zero", "tokens/s", "/ 1 x 2",
      "no limit", "compute", "comm wait", "data wait", "comm ms", "hidden";
    for my $words (grep { /^\S+ 2 .* $batch$/ } @order) {
      my ($place, undef, $tensor, $zero) = split " ", $words;
      my ($rate, $step, $wait, $data, $comm) =
        map { median($words, $_) } qw(tokens_per_s step_ms comm_wait_ms data_wait_ms comm_ms);
      printf "  %-20s %6d %4d %8.0f %7s %8s  %8.1f %9.1f %9.1f %8s %7s\n", $names{$place}, $tensor, $zero, $rate,
        share($rate, $one), $place eq "1gbit" ? share($rate, median("none 2 $tensor $zero $batch", "tokens_per_s")) : "-",
        $step - $wait - $data, $wait, $data, defined $comm ? sprintf("%.1f", $comm) : "-",
        $comm ? share($comm - $wait, $comm) : "-";
    }
  }' samples
