#!/usr/bin/env bash
# `lazytrain inspect` of checkpoints, shards and texts; what it finds in damaged ones; other readers of a checkpoint.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

write_checkpoint() {
  write_tiny_config
  expect 0 train 1
  checkpoint=out/step_00000012.h5
}

test_a_checkpoint() {
  write_checkpoint
  expect 0 lazytrain inspect $checkpoint
  expect_line stdout '^step: +12$' '^tokens: +2304$' '^samples consumed: 96$' 'commit [0-9a-f]+' '^instruction set: +[a-z0-9]+$' \
    '^BLAS kernel: ' '^MPI: ' '^ranks: +1, of 1 threads$' 'lm_head.weight +\[257, 32\]' 'model.layers.1.attn.tau +\[4\]' \
    'learnable_bias_diagonals +\[4, 16\]' '^ +hidden_size: 32$' '^ +decay_steps: 12$' '^/optimizer/v +25 tensors'
  local before
  before=$(contents .)
  expect 0 lazytrain inspect --verify $checkpoint
  expect 0 lazytrain inspect --verify out
  [ "$before" = "$(contents .)" ] || fail "inspect changed files"
}

# Where the file keeps the first chunk of a tensor: h5ls names bytes and address.
chunk_address() { h5ls -va "$checkpoint/$1" | sed -nE 's/^ +0x[0-9a-f]+ +[0-9]+ +([0-9]+) .*/\1/p' | head -n 1; }

# In a parameter, in a moment, in the structure, in the config: nothing of it stays unnoticed.
test_a_flipped_byte_is_found() {
  write_checkpoint
  local places=() place tensor
  for tensor in params/lm_head.weight params/model.layers.1.attn.tau params/model.norm.weight \
    optimizer/m/model.embeddings.weight optimizer/v/model.layers.0.mlp.down_proj.weight; do
    place=$(chunk_address $tensor)
    [ -n "$place" ] || fail "no address of $tensor: $(h5ls -va "$checkpoint/$tensor" | tail -3)"
    places+=($((place + 5)))
  done
  places+=("$(grep -abo 'hidden_size: 32' $checkpoint | head -n 1 | cut -d : -f 1)")
  places+=("$(grep -abo 'learnable_bias' $checkpoint | head -n 1 | cut -d : -f 1)" 3 20)
  for place in "${places[@]}"; do
    cp $checkpoint flipped.h5
    flip_byte flipped.h5 "$place"
    try expect 2 lazytrain inspect --verify flipped.h5
    try expect_error 'flipped.h5'
  done
  all_held
}

# The bad file of a folder does not hide the good one.
test_a_folder() {
  write_checkpoint
  write_shard out/shard.bin 30
  cp $checkpoint out/step_00000011.h5
  flip_byte out/step_00000011.h5 $(($(chunk_address params/model.norm.weight) + 5))
  expect 2 lazytrain inspect --verify out
  expect_error 'out: 1 of 3 files are bad'
  expect_line stdout '^bad: .*step_00000011.h5' '^checkpoint: +out/step_00000012.h5' 'out/shard.bin'
  mkdir empty
  refused 'empty holds no checkpoint \(.h5\), no token shard \(.bin\) and no tokenizer' -- lazytrain inspect empty
}

test_shards_and_texts() {
  write_tiny_config
  write_shard shard.bin 500
  perl -e 'print pack("l<256", 20240801, 7, 3, (0) x 253), pack("L<*", 5, 70000, 9)' >wide.bin
  expect 0 lazytrain inspect shard.bin
  expect_line stdout 'shard.bin' '500' 'uint16' '8[ ,]+18[ ,]+30'
  expect 0 lazytrain inspect --verify wide.bin
  expect_line stdout 'uint32' '5[ ,]+70000[ ,]+9'
  expect 0 lazytrain inspect text.txt
  expect_line stdout '12000|12,000' 'UTF-8'
  expect 0 lazytrain inspect --verify shard.bin text.txt
  truncate -s -1 shard.bin
  refused "shard.bin' is truncated" -- lazytrain inspect shard.bin
}

test_bad_calls() {
  write_tiny_config
  mkfifo fifo.bin
  head -c 20000 "$LAZYTRAIN" >program
  : >empty.bin
  try refused 'no file is given' -- lazytrain inspect
  try refused 'missing.bin: No such file' -- lazytrain inspect missing.bin
  try refused 'unknown option --verfiy' -- lazytrain inspect --verfiy text.txt
  try refused 'fifo.bin' -- lazytrain inspect fifo.bin
  try refused '/dev/zero' -- lazytrain inspect /dev/zero
  try refused 'program' -- lazytrain inspect program
  try refused 'empty.bin' -- lazytrain inspect empty.bin
  all_held
}

test_ordinary_tools_read_a_checkpoint() {
  write_checkpoint
  expect 0 h5dump -d /params/model.norm.weight $checkpoint
  expect_line stdout 'H5T_IEEE_F32LE' '^ +\(0\): (0\.9|1)'
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"
  /usr/bin/python3 - $checkpoint >h5py.out 2>&1 <<'PYTHON' || fail "$(tail -n 3 h5py.out)"
import sys, h5py, numpy
with h5py.File(sys.argv[1], "r") as f:
    assert f.attrs["format_version"] == 1 and f.attrs["step"] == 12 and f.attrs["tokens"] == 2304
    config = f.attrs["config"]
    assert "hidden_size: 32" in (config.decode() if isinstance(config, bytes) else config)
    assert list(f["data/samples_consumed"][...]) == [96]
    names = sorted(f["params"])
    assert names == sorted(f["optimizer/m"]) == sorted(f["optimizer/v"]) and len(names) == 25
    for name in names:
        w, m, v = (f[group][name] for group in ("params", "optimizer/m", "optimizer/v"))
        assert w.dtype == numpy.float32 and w.fletcher32 and w.chunks and w.shape == m.shape == v.shape, name
        assert numpy.isfinite(w[...]).all() and numpy.isfinite(m[...]).all() and (v[...] >= 0).all(), name
    assert f["params/model.layers.0.attn.k_proj.weight"].shape == (16, 32)
    assert 0.9 < f["params/model.norm.weight"][...].mean() < 1.1
    std = f["params/model.layers.0.mlp.gate_proj.weight"][...].std()
    assert 0.015 < std < 0.04, std  # drawn with 0.02
PYTHON
}

# What FORMAT.md says under "Reading it", as it stands there, commands and Python; and the script that it names.
test_the_examples_of_the_format_run() {
  local line count=0
  write_checkpoint
  cp $checkpoint step_00001000.h5
  awk '/^## / { inside = /^## Reading it/ } inside && sub(/^    /, "")' "$tests_root/../checkpoints/FORMAT.md" >examples
  while read -r line; do
    expect 0 bash -c "${line/#lazytrain/\"$LAZYTRAIN\"}"
    [ -s stdout ] || fail "prints nothing: $line"
    count=$((count + 1))
  done < <(grep -E '^(h5dump|lazytrain) ' examples)
  [ $count -eq 4 ] || fail "$count commands, expected 4"
  /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"
  grep -vE '^(h5dump|lazytrain) ' examples >example.py
  echo 'print(len(weights), weights["model.norm.weight"].shape)' >>example.py
  expect 0 /usr/bin/python3 example.py
  expect_line stdout '^12 model:$' '^ *hidden_size: 32$' '^25 \(32,\)$'
  expect 0 /usr/bin/python3 "$tests_root/unit/read_checkpoint.py" step_00001000.h5
  expect_line stdout '^step: 12$' '^tensors: 25$'
  flip_byte step_00001000.h5 $(($(chunk_address params/model.norm.weight) + 5))
  expect 1 /usr/bin/python3 example.py
  expect 1 /usr/bin/python3 "$tests_root/unit/read_checkpoint.py" step_00001000.h5
}

run_tests
