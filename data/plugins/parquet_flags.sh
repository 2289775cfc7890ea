#!/usr/bin/env bash
# Prints the C++ standard and ABI that this Arrow was built for: those with which a program links to it. Versions differ,
# and its headers do not tell. Usage: parquet_flags.sh "COMPILER" "CFLAGS" "LIBS"
set -u
# shellcheck disable=SC2086 # lists of words
probe() {
  $1 -std="$4" -D_GLIBCXX_USE_CXX11_ABI="$5" $2 -x c++ - -o /dev/null -x none $3 2>&1 <<'PROGRAM'
#include <arrow/io/interfaces.h>
#include <parquet/api/reader.h>
int main() {
    try {
        std::shared_ptr<arrow::io::RandomAccessFile> none;
        return arrow::Status::IOError("a message").ToString().empty() + parquet::ParquetFileReader::Open(none)->metadata()->num_columns();
    } catch (const parquet::ParquetException &) {
        return 1;
    }
}
PROGRAM
}
why=
for standard in c++20 c++17 c++23; do
  for abi in 1 0; do
    found=$(probe "$1" "$2" "$3" $standard $abi) && {
      echo "-std=$standard -D_GLIBCXX_USE_CXX11_ABI=$abi"
      exit 0
    }
    : "${why:=$found}"
  done
done
echo "$why" | head -n 3 >&2
echo "no C++ standard fits this Arrow" >&2
exit 1
