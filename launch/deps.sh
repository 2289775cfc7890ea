#!/usr/bin/env bash
# Installs what is missing: launch/deps.sh build [test] [slurm] [fuzz] [lint]. Says what it does, does nothing where all
# is there. Packages of the system by apt-get; Arrow, which Debian 12 lacks, with pyarrow by pip into a virtual environment
# of its own, VENV.
# Used by `make`; DEPS=skip leaves it out (clusters without root: see the README for what must be there).
set -eu
mpicc=${MPICC:-mpicc}
pkg_config=${PKG_CONFIG:-pkg-config}
venv=${VENV:-build/venv}
# Of the reference tokenizers and pyarrow; the newest one that a Python has wheels for, where there is none of these.
pyarrow=26.0.1
sentencepiece=0.2.0 tokenizers=0.20.3
missing=()
with_pyarrow=no with_tokenizers=no

have() { command -v "$1" >/dev/null 2>&1; }
need() { # package, then a command that succeeds where it is there
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
library() { have "$pkg_config" && "$pkg_config" --exists "$1"; }
any_file() {
  local file
  for file; do [ -e "$file" ] && return 0; done
  return 1
}

for set; do
  case $set in
    build)
      need gcc have "${CC:-cc}"
      need libc6-dev any_file /usr/include/stdlib.h
      need git have git
      need pkg-config have "$pkg_config"
      case $mpicc in
        *mpich*) need libmpich-dev have "$mpicc"; need mpich have mpirun.mpich ;;
        *) need libopenmpi-dev have "$mpicc"; need openmpi-bin have mpirun ;;
      esac
      need libhdf5-dev eval 'library hdf5-serial || library hdf5'
      need libopenblas-serial-dev any_file /usr/lib/*/openblas-serial/libopenblas.a ${BLAS_LIBS:+/}
      need libyaml-dev library yaml-0.1
      need libjansson-dev library jansson
      need zlib1g-dev library zlib
      need libzstd-dev library libzstd
      need libxxhash-dev library libxxhash
      need libpcre2-dev library libpcre2-8
      need libutf8proc-dev library libutf8proc
      need libsentencepiece-dev library sentencepiece
      need g++ have "${CXX:-c++}"
      library arrow && library parquet || with_pyarrow=yes ;;
    test)
      need libcmocka-dev library cmocka
      need hdf5-tools have h5diff
      need zstd have zstd
      need iproute2 any_file /usr/sbin/ip /sbin/ip /usr/bin/ip /bin/ip
      need python3-h5py /usr/bin/python3 -c 'import h5py'
      with_pyarrow=yes with_tokenizers=yes ;;
    slurm)
      need munge have munged
      need slurmctld have slurmctld
      need slurmd have slurmd
      need slurm-client have srun
      need libpmix-dev any_file /usr/lib/*/libpmix.so ;; # what mpi_pmix.so opens
    fuzz)
      need clang have "${FUZZ_CC:-clang}"
      need libclang-rt-dev any_file /usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*.a ;;
    lint)
      need clang-format have clang-format
      need clang-tidy have clang-tidy
      need cppcheck have cppcheck
      need shellcheck have shellcheck ;;
    *) echo "deps.sh: unknown set $set; expected build, test, slurm, fuzz or lint" >&2; exit 2 ;;
  esac
done

as_root=()
apt_install() { # package...
  echo "deps: missing: $*"
  if ! have apt-get; then
    echo "deps: no apt-get here; install these packages (Debian's names) yourself, then use DEPS=skip" >&2
    return 2
  fi
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || { echo "deps: not root and no sudo; install them yourself, then use DEPS=skip" >&2; return 2; }
    as_root=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  echo "deps: apt-get update, then apt-get install $*"
  "${as_root[@]}" apt-get update -qq || return
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null || return
  echo "deps: installed"
}

# A file keeps which version was asked for; an environment without it is somebody's own, and taken as it is.
have_wheel() { # package, version
  "$venv/bin/python" -c "import $1" 2>/dev/null && [ "$(cat "$venv/$1" 2>/dev/null || echo "$2")" = "$2" ]
}
pip_install() { # package, version
  echo "deps: missing: pip install $1==$2, into $venv"
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv || return
    python3 -m venv "$venv" || return
  fi
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 --no-deps --only-binary :all:)
  "${pip[@]}" "$1==$2" 2>"$venv/pip.log" || "${pip[@]}" "$1" 2>"$venv/pip.log" || {
    tail -n 1 "$venv/pip.log" >&2
    return 1
  }
  echo "$2" >"$venv/$1"
  echo "deps: installed"
}
wheel() { # package, version, what is not without it
  have_wheel "$1" "$2" || pip_install "$1" "$2" || echo "deps: no $1: $3; DEPS=skip asks no more" >&2
}

[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
[ $with_pyarrow = no ] || wheel pyarrow "$pyarrow" "no Parquet files are read in this build, all else is"
if [ $with_tokenizers = yes ]; then
  wheel sentencepiece "$sentencepiece" "its models are compared with golden ids, not with the package"
  wheel tokenizers "$tokenizers" "its files are compared with golden ids, not with the package"
fi
