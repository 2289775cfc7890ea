#!/usr/bin/env bash
# The program of `make gpu-bench` works, in sizes that an emulated GPU finishes; and where there is no GPU it says so.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
bench=$(dirname "$LAZYTRAIN")/emulation/bench

test_smoke() {
  [ -x "$bench" ] || skip "the emulated GPU switches stacks of x86-64"
  expect 0 "$bench" --smoke
  perl -MJSON::PP -e '
    my $all = decode_json(join "", <>);
    my %kinds;
    for my $result (@{$all->{results}}) {
      my ($kind) = grep { exists $result->{$_} } qw(product attention steps);
      $kinds{$kind}++;
      for my $rate (grep { /tflops|_ms$|per_s|times/ } keys %$result) {
        die "$kind: $rate is $result->{$rate}" unless $result->{$rate} > 0;
      }
      next unless $kind eq "attention";
      if ($result->{attention} eq "cudnn") {
        die "cuDNN differs: $result->{difference}" unless !$result->{differs} && $result->{difference} > 0;
      } else {
        die "live tiles: $result->{live}" if $result->{live} < 0 || $result->{live} > 1;
        die "not against cuDNN" unless exists $result->{times_cudnn};
      }
    }
    die "cuDNN: $all->{cudnn}" unless $all->{cudnn} eq "emulated";
    die join " ", %kinds unless $kinds{product} == 4 && $kinds{attention} == 12 && $kinds{steps} == 1;
  ' stdout || fail "$(cat stdout)"
}

# Ends soon, for want of memory.
test_no_cudnn() {
  [ -x "$bench" ] || skip "the emulated GPU switches stacks of x86-64"
  EMULATED_CUDNN=0 EMULATED_MEMORY_MIB=1 expect 74 "$bench" --smoke
  expect_line stderr '^attention is not measured against cuDNN: no cuDNN 9: EMULATED_CUDNN=0$'
  expect_line stdout '"cudnn": null,$'
}

test_no_gpu() {
  [ -x "$bench" ] || skip "the emulated GPU switches stacks of x86-64"
  EMULATED_DEVICES=0 expect 2 "$bench"
  expect_line stderr '^make gpu-bench: no NVIDIA driver is loaded'
}

run_tests
