#!/usr/bin/env bash
# Bad folders and checkpoints, alone and on two ranks: found before the first step (exit status 2), nothing touched.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# bad PATTERN WORD...: the words of train() are refused, and the line matches; so on 1 and on 2 ranks.
bad() {
  local count
  for count in 1 2; do try_apart refused "$1" -- train $count "${@:2}"; done
}

test_folders_that_are_none() {
  write_tiny_config
  bad 'text.txt is not a folder: choose another checkpoint.dir' checkpoint.dir=text.txt
  bad 'cannot create folder text.txt/out: Not a directory: choose another checkpoint.dir' checkpoint.dir=text.txt/out
  bad 'text.txt is not a folder: choose another log.dir' checkpoint.dir=out/a log.dir=text.txt
  bad 'text.txt is not a folder: choose another checkpoint.dir' checkpoint.dir=text.txt log.dir=new/log
  ln -s loop loop
  ln -s nowhere dangling
  bad 'loop is not a folder' checkpoint.dir=loop
  bad 'cannot create folder loop/out: Too many levels of symbolic links' checkpoint.dir=loop/out
  bad 'dangling is not a folder' checkpoint.dir=dangling
  bad 'cannot create folder new/x+: File name too long' checkpoint.dir="new/$(printf 'x%.0s' {1..300})"
  bad 'checkpoint.dir: found a text of 4200 bytes, expected at most 4000' checkpoint.dir="$(printf 'x/%.0s' {1..2100})"
  bad '/proc/none.*choose another checkpoint.dir' checkpoint.dir=/proc/none
  bad 'checkpoint.dir: .*found nothing' 'checkpoint.dir=""'
  bad 'checkpoint.dir: found 5, expected a text' checkpoint.dir=5
  all_held
}

# A folder that holds the run of another model.
test_a_folder_that_holds_another_run() {
  write_tiny_config
  expect 0 train 1 train.steps=2
  # With --overwrite the run that is there goes only when its successor can start.
  bad 'text.txt.*(Not a directory|not a folder)' log.dir=text.txt --resume none --overwrite
  bad 'model.num_layers: found 1, but the run in this folder has 2' model.num_layers=1
  bad 'data.seq_len: found 32, but the run in this folder has 24' data.seq_len=32
  mkdir -p logs/metrics.jsonl
  bad 'logs/metrics.jsonl: is no regular file; move it away' log.dir=logs --resume none --overwrite
  all_held
}

# Named by --resume, a checkpoint is judged before a folder is made for it, and before later ones are set aside.
test_a_checkpoint_of_another_run() {
  write_tiny_config
  expect 0 train 1 train.steps=3 checkpoint.every=1 parallel.lanes=2
  local earlier=(--resume out/step_00000001.h5)
  bad 'model.num_layers: found 1, but the run in this folder has 2' model.num_layers=1 checkpoint.dir=new/folder log.dir=new/log "${earlier[@]}"
  bad 'model.num_layers: found 1, but the run in this folder has 2' model.num_layers=1 "${earlier[@]}"
  bad 'text.txt is not a folder: choose another checkpoint.dir' checkpoint.dir=text.txt log.dir=new "${earlier[@]}"
  try_apart refused '4 data ranks cannot share parallel.lanes 2 .*; start 1, 2 ranks' -- train 4 "${earlier[@]}"
  try_apart refused '4 data ranks cannot share parallel.lanes 2 .*; start 1, 2 ranks' -- train 4
  try_apart expect 0 train 4 parallel.lanes=4
  if need_h5py; then
    h5py_edit out/step_00000001.h5 shape.h5 "[(f.__delitem__(g + '/model.norm.weight'),
      f.create_dataset(g + '/model.norm.weight', data=numpy.zeros(33, 'f4'), chunks=(33,), fletcher32=True))
      for g in ('params', 'optimizer/m', 'optimizer/v')]"
    bad 'shape.h5: .*model.norm.weight.*33.*32' --resume shape.h5
  fi
  all_held
}

# in_mounts SCRIPT: bash in a mount namespace of its own, where permissions do not help root either.
in_mounts() {
  unshare -m --propagation private true 2>/dev/null || skip "mount namespaces are not allowed here"
  unshare -m --propagation private bash -c "
    source '$tests_root/cli/lib.sh'
    $1" || exit 1
}

test_a_read_only_folder() {
  write_tiny_config
  expect 0 train 1 train.steps=2
  mkdir empty
  # shellcheck disable=SC2016 # expanded there
  in_mounts '
    for folder in out empty; do mount --bind $folder $folder && mount -o remount,ro,bind $folder || skip "no bind mounts"; done
    for count in 1 2; do
      refused "folder out cannot be written: .*Read-only file system" -- train $count
      refused "folder empty cannot be written: .*Read-only file system" -- train $count checkpoint.dir=empty
      refused "empty/new.*Read-only file system" -- train $count checkpoint.dir=empty/new
      refused "empty cannot be written: .*Read-only file system.*choose another log.dir" -- train $count checkpoint.dir=other log.dir=empty
    done'
}

# Room for a probe but not for a checkpoint; then not even for the probe.
test_a_full_folder() {
  write_tiny_config
  mkdir small full
  # shellcheck disable=SC2016 # expanded there
  in_mounts '
    mount -t tmpfs -o size=256k none small && mount -t tmpfs -o size=256k none full || skip "no tmpfs"
    head -c 256K /dev/zero >full/ballast
    for count in 1 2; do
      refused "folder small has no room: [0-9]+ bytes needed .*, [0-9]+ free" -- train $count checkpoint.dir=small
      refused "folder small/new/er has no room" -- train $count checkpoint.dir=small/new/er log.dir=logs
      refused "folder full has no room" -- train $count checkpoint.dir=full
      refused "folder full (has no room|cannot be written: .*No space left).*choose another log.dir" -- train $count checkpoint.dir=other log.dir=full
    done
    expect_checkpoints small'
}

# resumed_from FILE PATTERN: by name it is refused.
resumed_from() { bad "$2" --resume "$1"; }

# A file of HDF5 with the given change to a good checkpoint, by h5py.
test_checkpoints() {
  write_tiny_config
  expect 0 train 1 train.steps=2
  cp out/step_00000002.h5 good.h5
  local size
  size=$(stat -c %s good.h5)
  for length in 7 100 3000 $((size / 2)) $((size - 1)); do
    head -c $length good.h5 >cut_$length.h5
    resumed_from cut_$length.h5 "cut_$length.h5"
  done
  (cat good.h5; echo) >longer.h5
  cp good.h5 flipped.h5
  flip_byte flipped.h5 $((size * 3 / 4))
  cp good.h5 head.h5
  flip_byte head.h5 20
  mkfifo fifo.h5
  mkdir folder.h5
  resumed_from flipped.h5 'flipped.h5: .*checksum'
  resumed_from head.h5 'head.h5: '
  resumed_from text.txt 'text.txt: not an HDF5 file'
  resumed_from fifo.h5 'fifo.h5: not a file: expected a checkpoint'
  resumed_from folder.h5 'folder.h5: not a file: expected a checkpoint'
  resumed_from /dev/zero '/dev/zero: not a file'
  resumed_from missing.h5 'missing.h5: .*No such file'
  resumed_from tiny.yaml 'tiny.yaml: not an HDF5 file'
  all_held
}

# h5py_edit SOURCE COPY PYTHON: a copy of a checkpoint, changed by a statement about the file `f`.
h5py_edit() {
  cp "$1" "$2"
  /usr/bin/python3 -c "import h5py, numpy
with h5py.File('$2', 'r+') as f: $3"
}
need_h5py() { /usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3"; }

test_checkpoints_of_another_kind() {
  need_h5py
  write_tiny_config
  expect 0 train 1 train.steps=2
  cp out/step_00000002.h5 good.h5
  h5py_edit good.h5 same.h5 'pass'
  h5py_edit good.h5 newer.h5 "f.attrs['format_version'] = numpy.int64(2)"
  h5py_edit good.h5 nameless.h5 "del f.attrs['config']"
  h5py_edit good.h5 yaml.h5 "f.attrs['config'] = 'model: [1'"
  h5py_edit good.h5 negative.h5 "f.attrs['step'] = numpy.int64(-1)"
  h5py_edit good.h5 missing.h5 "del f['params/model.norm.weight'], f['optimizer/m/model.norm.weight'], f['optimizer/v/model.norm.weight']"
  h5py_edit good.h5 moment.h5 "del f['optimizer/v/model.norm.weight']"
  h5py_edit good.h5 group.h5 "del f['optimizer']"
  h5py_edit good.h5 shape.h5 "[(f.__delitem__(g + '/model.norm.weight'),
    f.create_dataset(g + '/model.norm.weight', data=numpy.zeros(33, 'f4'), chunks=(33,), fletcher32=True))
    for g in ('params', 'optimizer/m', 'optimizer/v')]"
  h5py_edit good.h5 type.h5 "f.__delitem__('params/model.norm.weight'); f.create_dataset('params/model.norm.weight', data=numpy.zeros(32, 'i4'))"
  h5py_edit good.h5 extra.h5 "f.create_dataset('params/model.more.weight', data=numpy.zeros(32, 'f4'), chunks=(32,), fletcher32=True)"
  /usr/bin/python3 -c 'import h5py; h5py.File("foreign.h5", "w").create_dataset("x", data=[1.0])'
  resumed_from newer.h5 'newer.h5: has checkpoint format 2, this lazytrain reads up to 1'
  resumed_from nameless.h5 'nameless.h5: the root attribute config is missing'
  resumed_from yaml.h5 'yaml.h5:.*not valid YAML'
  resumed_from negative.h5 'negative.h5: the root attribute step is -1, expected 0 or more'
  resumed_from missing.h5 'missing.h5: .*model.norm.weight'
  resumed_from moment.h5 'moment.h5: .*model.norm.weight'
  resumed_from group.h5 'group.h5: .*optimizer'
  resumed_from shape.h5 'shape.h5: .*model.norm.weight.*33.*32'
  resumed_from type.h5 'type.h5: .*model.norm.weight'
  resumed_from extra.h5 'extra.h5: .*model.more.weight'
  resumed_from foreign.h5 'foreign.h5: '
  try_apart expect 0 train 1 --resume same.h5
  all_held
}

# The newest of a folder, of a version to come: no damage, so it is neither renamed nor passed over.
test_a_newer_format_in_the_folder() {
  need_h5py
  write_tiny_config
  expect 0 train 1 train.steps=2 checkpoint.every=1
  h5py_edit out/step_00000002.h5 out/step_00000003.h5 "f.attrs['format_version'] = numpy.int64(2)"
  bad 'step_00000003.h5: has checkpoint format 2'
  all_held
}

run_tests
