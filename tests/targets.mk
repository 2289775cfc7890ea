# Test programs: tests/unit/test_*.c (one process) and tests/mpi/test_*.c (run at the rank counts that the first
# line of each names). Each is linked with everything but main().

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
MPI_TESTS  := $(patsubst tests/mpi/%.c,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/test_*.c))
REFERENCE := $(BUILD)/libreference.a

$(REFERENCE): $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/reference/*.c))
	rm -f $@
	$(AR) rcs $@ $^

# The model's tests are linked without MPI, HDF5 and YAML: the model needs a C compiler and BLAS alone.
MODEL_TESTS := $(filter $(BUILD)/tests/unit/test_ops_% $(BUILD)/tests/unit/test_model% $(BUILD)/tests/unit/test_registry \
                        $(BUILD)/tests/unit/test_reference% $(BUILD)/tests/unit/test_step $(BUILD)/tests/unit/test_losses \
                        $(BUILD)/tests/unit/test_plan $(BUILD)/tests/unit/test_split $(BUILD)/tests/unit/test_recompute,$(UNIT_TESTS))

$(MODEL_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(REFERENCE) $(MODEL_OBJECTS) $(BASE_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $^ -lcmocka $(BLAS_LIBS) -lm -pthread

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(REFERENCE) $(BUILD)/liblazytrain.a
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $(call link,$^ -lcmocka $(LIBS))

$(BUILD)/tests/mpi/%: $(BUILD)/obj/tests/mpi/%.o $(REFERENCE) $(BUILD)/liblazytrain.a
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $(call link,$^ -lcmocka $(LIBS))

$(BUILD)/tests/unit/%: EXTRA := $(HDF5_CFLAGS)

# Plans of cuDNN's, with a driver in place of a GPU's.
$(BUILD)/tests/unit/test_cudnn: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/gpu/cudnn_*.c)) | $(BUILD)/tests/gpu/libcuda.so.1
$(BUILD)/obj/tests/unit/test_cudnn.o: EXTRA := -DDRIVER='"$(abspath $(BUILD))/tests/gpu/libcuda.so.1"'

$(BUILD)/tests/gpu/libcuda.so.1: tests/gpu/driver.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) -shared -fPIC -Wl,-soname,libcuda.so.1 -o $@ $<

# The shim that makes calls fail: linked into tests, and preloaded to the program.
$(BUILD)/tests/unit/test_save_faults $(BUILD)/tests/mpi/test_checkpoint_mpi: $(BUILD)/obj/tests/fault/shim.o

$(BUILD)/tests/fault/shim.so: tests/fault/shim.c tests/fault/shim.h tests/fault/preload.h
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) -DFAULT_PRELOADED -shared -fPIC -o $@ $< -ldl

# Records a run; shows what a power cut may leave of it.
$(BUILD)/tests/fault/record.so: tests/fault/record.c tests/fault/record.h tests/fault/preload.h
	@mkdir -p $(@D)
	$(CC) $(BASE) $(CFLAGS) -shared -fPIC -o $@ $< -ldl

$(BUILD)/tests/fault/power_cut: $(BUILD)/obj/tests/fault/power_cut.o $(BUILD)/liblazytrain.a
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $(call link,$^ $(LIBS))

FAULT_TOOLS := $(addprefix $(BUILD)/tests/fault/,shim.so record.so power_cut)

# Encodes strings for the comparison with the reference tokenizers.
$(BUILD)/tests/tools/%: $(BUILD)/obj/tests/tools/%.o $(BUILD)/liblazytrain.a
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $(call link,$^ $(LIBS))

TOOLS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/tools/*.c))

.PHONY: build-tests build-faults run-bench run-lint
build-faults: build-program $(FAULT_TOOLS)

# What a suite runs; SUITES asks for less than all.
WITH_unit := $(UNIT_TESTS)
WITH_mpi  := $(MPI_TESTS)
WITH_cli  := $(TOOLS) $(PTXAS_LOGS)
WITH_slow := $(TOOLS) $(UNIT_TESTS)
build-tests: build-faults $(foreach suite,$(or $(SUITES),unit mpi cli slow),$(WITH_$(suite))) $(if $(filter-out unit mpi,$(or $(SUITES),cli)),build-emulation)

# Fuzz targets: clang's libFuzzer over the reading of checkpoints, documents and tokenizers, built apart with the sanitizers.
FUZZ_CC      ?= clang
FUZZ_SOURCES := $(addprefix checkpoints/,child.c fletcher32.c inspect.c lookup3.c read.c stored.c system.c walk.c) \
                comm/status.c comm/interrupt.c model/registry.c
FUZZ_TARGETS := $(addprefix $(BUILD)/fuzz/,fuzz_answer fuzz_file fuzz_documents fuzz_parquet fuzz_tokenizer)
FUZZ_FLAGS   := -std=gnu11 -I. $(WARNINGS) -Wno-sign-conversion -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,undefined \
                -fno-sanitize-recover=undefined

# A fork with AddressSanitizer's memory takes ten times as long.
$(BUILD)/fuzz/fuzz_answer: FUZZ_EXTRA := -fsanitize=address
$(BUILD)/fuzz/fuzz_file: FUZZ_EXTRA := checkpoints/probe.c -Wl,--wrap=lt_child_fork

$(BUILD)/fuzz/%: tests/fuzz/%.c tests/fuzz/fuzz.h tests/unit/checkpoint_blocks.h $(FUZZ_SOURCES) checkpoints/probe.c $(wildcard checkpoints/*.h)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) $(HDF5_CFLAGS) -o $@ $< $(FUZZ_SOURCES) $(FUZZ_EXTRA) $(HDF5_LIBS) -lm

FUZZ_DOCUMENTS := $(filter-out %/inspect.c %/tokens.c,$(wildcard data/documents/*.c)) data/files.c data/manifest.c comm/plugin.c data/source.c data/tokenizers/utf8.c \
                  $(addprefix comm/,status.c interrupt.c log.c)

$(BUILD)/fuzz/fuzz_documents $(BUILD)/fuzz/fuzz_parquet: $(BUILD)/fuzz/%: tests/fuzz/%.c tests/fuzz/fuzz.h $(FUZZ_DOCUMENTS) $(wildcard data/*.h data/*/*.h)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=address $(HDF5_CFLAGS) -o $@ $< $(FUZZ_DOCUMENTS) $(JSON_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS) -pthread -ldl

FUZZ_TOKENIZER := $(filter-out %/inspect.c,$(wildcard data/tokenizers/*.c)) comm/plugin.c comm/status.c

$(BUILD)/fuzz/fuzz_tokenizer: tests/fuzz/fuzz_tokenizer.c tests/fuzz/fuzz.h tests/unit/tokenizer_fixture.h $(FUZZ_TOKENIZER) $(wildcard data/*.h data/*/*.h)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=address $(HDF5_CFLAGS) -o $@ $< $(FUZZ_TOKENIZER) $(DATA_LIBS) -pthread

.PHONY: run-fuzz
run-fuzz: build-program $(FUZZ_TARGETS)
	@tests/fuzz/run.sh $(BUILD)

BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(wildcard tests/bench/bench_*.c))

$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/liblazytrain.a
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $(call link,$^ $(LIBS))

$(BUILD)/obj/tests/bench/%.o: EXTRA := $(BLAS_CFLAGS)

run-bench: build-program $(BENCHES)
	@BUILD=$(BUILD) tests/bench/run.sh

OWN_C      := $(shell git ls-files '*.c' '*.h')
OWN_SHELL  := $(shell git ls-files '*.sh' '*.sbatch') .ci/run tests/mpirun_ranks

# clang-tidy reads the files of one instruction set; the others differ in flags alone.
run-lint:
	@clang-format --dry-run --Werror $(OWN_C)
	@cppcheck --quiet -j "$$(nproc)" --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,portability --suppress=ctunullpointer \
	    --suppress=missingIncludeSystem -DLT_ISA=sse2 -I. $(filter-out tests/%,$(filter %.c,$(OWN_C)))
	@printf '%s\n' $(filter-out tests/%,$(filter %.c,$(OWN_C))) | xargs -P "$$(nproc)" -n 8 sh -c 'clang-tidy --quiet \
	    --warnings-as-errors="*" "$$@" -- -std=gnu11 -I. $(HDF5_CFLAGS) $(BLAS_CFLAGS) \
	    $(shell $(MPICC) --showme:compile 2>/dev/null | sed 's/-I/-isystem /g') \
	    -DLT_ISA=sse2 -DLT_VERSION=\"\" -DLT_COMMIT=\"\" -DLT_BUILD_OPTIONS=\"\"' clang-tidy
	@shellcheck -x -P SCRIPTDIR $(OWN_SHELL)
