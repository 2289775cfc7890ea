# shellcheck shell=bash
# Sourced by tests that start ranks: finds the launcher (MPIRUN, else mpirun) and the flags that let it run as root and
# with more ranks than cores. tests/mpirun_ranks uses both.
export MPIRUN=${MPIRUN:-mpirun}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if "$MPIRUN" --version 2>/dev/null | grep -q 'Open MPI\|open-mpi'; then
  export MPIRUN_FLAGS="-q --oversubscribe --bind-to none"
else
  export MPIRUN_FLAGS=
fi
