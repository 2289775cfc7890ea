#!/usr/bin/env bash
# LAZYTRAIN_CHECK_COLLECTIVES: ranks that call different collectives are named and end with 1 instead of hanging, and ranks
# that do not differ do what they do without it.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
: "${TEST_BUILD:=$tests_root/../build}"
tool=$TEST_BUILD/tests/tools/collectives

# differing CASE [RANK] -- PATTERN: 4 ranks, one of which differs; all end.
differing() {
  local words=()
  while [ "$1" != -- ]; do words+=("$1") && shift; done
  RUN_TIMEOUT=40 LAZYTRAIN=$tool expect 1 ranks 4 "${words[@]}"
  expect_error "collective [0-9]+ is not the same on all ranks: $2"
}

test_what_differs_is_said() {
  export LAZYTRAIN_CHECK_COLLECTIVES=1
  try_apart differing operation -- 'rank 3: barrier; ranks 0-2: broadcast of 8 bytes from rank 0;'
  try_apart differing operation 0 -- 'rank 0: barrier; ranks 1-3: broadcast of 8 bytes from rank 0;'
  try_apart differing broadcast 1 -- 'rank 1: broadcast of 7 bytes from rank 0; ranks 0,2-3: broadcast of 8 bytes from rank 0;'
  try_apart differing root -- 'rank 3: broadcast of 8 bytes from rank 1; ranks 0-2: broadcast of 8 bytes from rank 0;'
  try_apart differing gather -- 'rank 3: gathering of 0 bytes a rank; ranks 0-2: gathering of 8 bytes a rank;'
  try_apart differing sum -- 'rank 3: sum of 8 doubles; ranks 0-2: sum of 7 doubles;'
  try_apart differing reduction -- 'rank 3: opening a reduction of 99 gradients; ranks 0-2: opening a reduction of 100 gradients;'
  try_apart differing run -- 'rank 3: reducing gradients 49 to 100; ranks 0-2: reducing gradients 50 to 100;'
  try_apart differing values 0 -- 'rank 0: opening a reduction of 100 gradients; ranks 1-3: all-gather of 100 values;'
  try_apart differing doubles -- 'rank 3: reduction of 2 doubles; ranks 0-2: reduction of 1 doubles;'
  try_apart differing agreement -- 'rank 3: agreement; ranks 0-2: begin of an agreement;'
  try_apart differing status -- 'rank 3: sharing of a status; ranks 0-2: agreement;'
  all_held
}

# Tensor groups by themselves: of ranks 0 and 1, and of ranks 2 and 3.
test_what_differs_in_a_tensor_group() {
  export LAZYTRAIN_CHECK_COLLECTIVES=1
  try_apart differing exchange -- 'rank 2: tensor all-gather of 100 elements of 4 bytes; rank 3: tensor all-gather of 99 elements of 4 bytes;'
  try_apart differing exchange 0 -- 'rank 0: tensor all-gather of 99 elements of 4 bytes; rank 1: tensor all-gather of 100 elements of 4 bytes;'
  try_apart differing partial 2 -- 'rank 2: tensor reduce-scatter of 99 elements; rank 3: tensor reduce-scatter of 100 elements;'
  try_apart differing consent -- 'rank 2: tensor all-gather of 100 elements of 4 bytes; rank 3: agreement of a tensor group;'
  all_held
}

test_a_missing_rank() {
  export LAZYTRAIN_CHECK_COLLECTIVES=2
  try_apart differing skipped 0 -- 'rank 0: agreement; ranks 1-3: barrier;'
  try_apart differing leaves -- 'rank 3: leaving; ranks 0-2: barrier;'
  try_apart differing hangs 1 -- 'rank 1: missing; ranks 0,2-3: barrier;'
  try_apart differing hangs 0 -- 'no answer from rank 0 for 2 s .* is missing; rank 1: barrier$'
  all_held
}

# Without it, with it, and where it is set for rank 0 alone, as by a launcher that keeps the environment to itself.
test_ranks_that_do_not_differ() {
  LAZYTRAIN=$tool expect 0 ranks 4 same
  ! grep -q checks stderr || fail "collectives are compared where nobody asked for it"
  LAZYTRAIN_CHECK_COLLECTIVES=0 LAZYTRAIN=$tool expect 0 ranks 4 same
  ! grep -q checks stderr || fail "collectives are compared where they should not be"
  LAZYTRAIN_CHECK_COLLECTIVES=1 LAZYTRAIN=$tool expect 0 ranks 4 same
  expect_line stderr '^checks +collectives are compared between ranks'
  cat >some <<'SH'
#!/bin/sh
[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" -eq 0 ] || unset LAZYTRAIN_CHECK_COLLECTIVES
exec "$TOOL" "$@"
SH
  chmod +x some
  TOOL=$tool LAZYTRAIN_CHECK_COLLECTIVES=1 LAZYTRAIN=$PWD/some expect 1 ranks 2 sum
  expect_error 'rank 0: sum of 7 doubles; rank 1: sum of 8 doubles;'
}

# A whole run passes: start, steps, metrics, validation, saves, a resume on another number of ranks; and an error.
test_training_does_not_differ() {
  write_tiny_config
  write_text 2000 >validation.txt
  words=(data.validation=validation.txt train.eval_every=5 checkpoint.every=4)
  export LAZYTRAIN_CHECK_COLLECTIVES=1
  expect 0 train 4 "${words[@]}" train.steps=6 schedule.decay_steps=12 parallel.zero=1
  expect_line stderr '^checks '
  expect 0 train 2 "${words[@]}" checkpoint.async=true schedule.decay_steps=12
  expect 2 train 2 model.hidden_size=31 checkpoint.dir=other
  expect_error 'hidden_size'
  unset LAZYTRAIN_CHECK_COLLECTIVES
  expect 0 train 1 "${words[@]}" schedule.decay_steps=12 checkpoint.dir=plain
  same_tensors "$(step_file plain 12)" "$(step_file out 12)"
}

test_preparing_does_not_differ() {
  write_text 5000 >a.txt
  write_text 3000 >b.txt
  words=(prepare --input '*.txt' --tokenizer bytes --shard-tokens 1000 --dedup exact)
  LAZYTRAIN_CHECK_COLLECTIVES=1 expect 0 ranks 3 "${words[@]}" --output checked
  expect_line stderr '^checks '
  expect 0 lazytrain "${words[@]}" --output plain
  diff -r plain checked || fail "the folders differ"
}

# MPI is called in comm/ alone, and there only by functions whose messages are known to be short: cut by lt_mpi_piece(), as
# tests/mpi/test_message_limit sees, or a few numbers.
test_which_mpi_functions_are_called() {
  local known=' MPI_Bcast MPI_Allgather MPI_Allreduce MPI_Isend MPI_Irecv '
  known+='MPI_Send MPI_Recv MPI_Iallreduce MPI_Ireduce MPI_Barrier '
  known+='MPI_Wait MPI_Test MPI_Testsome MPI_Wtime MPI_Comm_rank MPI_Comm_size MPI_Comm_dup MPI_Comm_split MPI_Comm_split_type MPI_Comm_free '
  known+='MPI_Comm_set_errhandler MPI_Error_string MPI_Get_library_version MPI_Init_thread MPI_Is_thread_main '
  known+='MPI_Query_thread MPI_Initialized MPI_Finalized MPI_Finalize MPI_Abort '
  calls() { find "$TEST_BUILD/obj" -path "$TEST_BUILD/obj/$1" -name '*.o' -exec nm -u '{}' + | grep -oE '\bP?MPI_[A-Z][a-z]\w*' | sort -u; }
  [ "$(calls 'comm/*' | wc -l)" -ge 10 ] || fail "no calls of MPI are found in $TEST_BUILD/obj/comm"
  for name in $(calls 'comm/*'); do
    [[ $known == *" $name "* ]] || fail "comm/ calls $name: how long are its messages?"
  done
  for folder in data model checkpoints trainer; do
    [ -z "$(calls "$folder/*")" ] || fail "$folder/ calls $(calls "$folder/*")"
  done
}

run_tests
