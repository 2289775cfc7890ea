# shellcheck shell=bash
# How much of a step the trainer waits for data. Sourced by run.sh, which sets build and folder.
data_dir=${folder:?}/data
: "${build:?}"
mkdir -p "$data_dir/shards"
"${CC:-cc}" -shared -fPIC -o "$data_dir/faults.so" tests/cli/lib/faults.c -ldl
xargs cat <launch/demo_text.txt >"$data_dir/text.txt"
# 10,000 shards of 2,100 tokens; the text as rows of JSON.
perl -e 'my ($text, $folder) = @ARGV; open my $in, "<:raw", $text; local $/; my @bytes = unpack "C*", <$in>;
  for my $i (0 .. 9999) { my $at = $i * 137 % (@bytes - 2100);
    open my $out, ">:raw", sprintf "%s/shards/%05d.bin", $folder, $i;
    print $out pack("l<256", 20240520, 1, 2100, (0) x 253), pack "S<*", @bytes[$at .. $at + 2099] }' "$data_dir/text.txt" "$data_dir"
perl -MJSON::PP -e 'open my $in, "<:raw", $ARGV[0]; local $/ = "\n\n"; while (<$in>) { print JSON::PP->new->ascii->encode({text => $_}), "\n" }' \
  "$data_dir/text.txt" >"$data_dir/rows.jsonl"

# wait_share NAME GOAL KEY=VALUE...: the waits of steps 3 to 30 as a share of their time.
wait_share() {
  local name=$1 goal=$2 settings=() word
  shift 2
  for word; do settings+=(--set "$word"); done
  rm -rf "$data_dir/run"
  tests/mpirun_ranks 2 "$build/lazytrain" train launch/demo.yaml --set checkpoint.dir="$data_dir/run" --set train.steps=30 \
    --set train.eval_every=0 --set log.every=1 --set log.diagnostics_every=0 --set data.cache_dir="$data_dir/cache" \
    --set data.validation=none "${settings[@]}" 2>"$folder/log" || cat "$folder/log" >&2
  sed -nE 's/.*"step":([0-9]+),.*"step_ms":([0-9.e+-]+),.*"data_wait_ms":([0-9.e+-]+),.*/\1 \2 \3/p' "$data_dir/run/metrics.jsonl" |
    awk -v name="$name" -v goal="$goal" '$1 > 2 { step += $2; wait += $3 } END { share = 100 * wait / step
      printf "data wait, %s: %.3f %% of the step%s\n", name, share, goal == "" ? "" : sprintf("  goal %s %%: %s", goal, share < goal ? "hit" : "miss") }'
}
wait_share "demo" 1 data.train="$data_dir/text.txt"
wait_share "10,000 shards of 2,100 tokens" 1 "data.train=$data_dir/shards" data.tokenizer=none
wait_share "rows of JSON, tokenised on the way" "" data.train="$data_dir/rows.jsonl"
wait_share "the same again" 1 data.train="$data_dir/rows.jsonl"
touch "$data_dir/slow"
for delay in 5 20 80; do
  LD_PRELOAD=$data_dir/faults.so FAULT_READ=.bin FAULT_WHEN=$data_dir/slow FAULT_DELAY=$delay \
    wait_share "shards on a disk that takes $delay ms a read" "" "data.train=$data_dir/shards" data.tokenizer=none
done
