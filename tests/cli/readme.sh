#!/usr/bin/env bash
# The README's commands: every line of its ```sh blocks runs in a copy of the tree, in order, with fewer steps; make
# targets that the text names exist; files that it names are there. (`make demo` and `make test` themselves are run by
# .ci/run.)
cd "$(dirname "$0")" || exit 1
source ./lib.sh
root=$(cd "$tests_root/.." && pwd)

copy_tree() {
  mkdir build
  ln -s "$LAZYTRAIN" build/lazytrain
  for folder in comm data model checkpoints trainer launch; do cp -r "$root/$folder" .; done
}

# The steps of the README's runs, shortened.
shorten() {
  sed -E 's/step_00000300/step_00000006/; s/train\.steps=400/train.steps=8 --set schedule.warmup_steps=2/;
    /(lazytrain train|mpirun\/train.sh)/ { /train\.steps=/! s/$/ --set train.steps=6/; s/$/ --set schedule.warmup_steps=2/ }
    /mpirun/ s/mpirun /mpirun -q --oversubscribe /'
}

test_commands_of_the_readme_run() {
  local count=0
  copy_tree
  awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/README.md" | grep -v '^make' | shorten >commands
  while IFS= read -r line; do
    timeout -k 5 300 bash -c "$line" >stdout 2>stderr </dev/null || {
      sed 's/^/# stderr: /' stderr
      fail "fails: $line"
    }
    count=$((count + 1))
  done <commands
  [ $count -ge 5 ] || fail "found only $count commands in README.md"
  [ -e runs/first/step_00000008.h5 ] || fail "the README's runs left no checkpoint of step 8"
}

test_make_targets_of_the_readme_exist() {
  local target
  for target in $(grep -oE '(^| |`)make [a-z-]+' "$root/README.md" | awk '{ print $2 }' | sort -u) all help; do
    grep -qE "^$target:" "$root/Makefile" || fail "README names make $target, the Makefile has no such target"
  done
}

test_files_that_the_readme_links_exist() {
  local file
  for file in $(grep -oE '\]\([a-z][a-zA-Z0-9_./]+\)' "$root/README.md" | tr -d '()]'); do
    [ -e "$root/$file" ] || fail "README links $file, which is not there"
  done
}

run_tests
