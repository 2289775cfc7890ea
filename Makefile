# lazytrain: pretraining of Lazy Attention models. `make help` lists the targets.
#
# Variables a user may set: MPICC, CC, NVCC, PKG_CONFIG_PATH, PREFIX, DESTDIR, BLAS_CFLAGS, BLAS_LIBS, HDF5_CFLAGS,
# HDF5_LIBS, BUILD (folder of the objects), VENV (folder of Arrow), MPIRUN (for tests and the demo), DEPS=skip (never call
# apt-get or pip).
# MPICC=mpicc.mpich builds for that MPI and starts ranks by its mpirun.mpich.

MPICC      ?= mpicc
MPIRUN     ?= $(if $(findstring mpicc,$(MPICC)),$(subst mpicc,mpirun,$(MPICC)),mpirun)
export MPIRUN
PKG_CONFIG ?= pkg-config
PREFIX     ?= /usr/local
BUILD      ?= build
OPTIMISE   ?= -O3
SANITIZE   ?=

VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo +)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
CFLAGS   ?= -g
BASE     := -std=gnu11 -I. $(WARNINGS) $(OPTIMISE) -fno-math-errno -fno-trapping-math -pthread $(SANITIZE)
ALL_CFLAGS = $(BASE) $(CFLAGS)

# OpenBLAS: the single-threaded build, linked statically by path (libopenblas.so.0 follows the system's alternatives),
# with the lock that it lacks (model/cpu/blas_lock.c). Another BLAS given as BLAS_LIBS must be single-threaded and safe
# to call from several threads.
BLAS_DIR    := $(firstword $(wildcard /usr/lib/*/openblas-serial) /usr/lib)
ifeq ($(origin BLAS_LIBS),undefined)
BLAS_LIBS   := $(BLAS_DIR)/libopenblas.a -Wl,--wrap=blas_memory_alloc,--wrap=blas_memory_free
BLAS_LOCK   := model/cpu/blas_lock.c
endif
BLAS_CFLAGS ?= -isystem $(patsubst /usr/lib/%/openblas-serial,/usr/include/%,$(BLAS_DIR))
HDF5_PC     := $(shell $(PKG_CONFIG) --exists hdf5-serial 2>/dev/null && echo hdf5-serial || echo hdf5)
HDF5_CFLAGS ?= $(shell $(PKG_CONFIG) --cflags $(HDF5_PC) 2>/dev/null | sed 's/-I/-isystem /g')
HDF5_LIBS   ?= $(shell $(PKG_CONFIG) --libs $(HDF5_PC) 2>/dev/null)
YAML_LIBS   ?= $(shell $(PKG_CONFIG) --libs yaml-0.1 2>/dev/null || echo -lyaml)
JSON_LIBS   ?= $(shell $(PKG_CONFIG) --libs jansson 2>/dev/null || echo -ljansson)
ZLIB_LIBS   ?= $(shell $(PKG_CONFIG) --libs zlib 2>/dev/null || echo -lz)
ZSTD_LIBS   ?= $(shell $(PKG_CONFIG) --libs libzstd 2>/dev/null || echo -lzstd)
XXHASH_LIBS ?= $(shell $(PKG_CONFIG) --libs libxxhash 2>/dev/null || echo -lxxhash)
PCRE2_LIBS  ?= $(shell $(PKG_CONFIG) --libs libpcre2-8 2>/dev/null || echo -lpcre2-8)
UTF8PROC_LIBS ?= $(shell $(PKG_CONFIG) --libs libutf8proc 2>/dev/null || echo -lutf8proc)
DATA_LIBS = $(JSON_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS) $(XXHASH_LIBS) $(PCRE2_LIBS) $(UTF8PROC_LIBS) -ldl
LIBS = $(HDF5_LIBS) $(YAML_LIBS) $(DATA_LIBS) $(BLAS_LIBS) -lm -pthread


# One group: the BLAS calls back into model/cpu/blas_lock.c.
link = -Wl,--start-group $(1) -Wl,--end-group

# ---- objects -------------------------------------------------------------------------------------------------------
# The kernels of model/cpu/kernels/ are compiled once for each instruction set and chosen when the program starts.

ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
ISAS := avx512 avx2 sse2
else
ISAS := generic
endif
ISA_FLAGS_avx512  := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
ISA_FLAGS_avx2    := -mavx2 -mfma
ISA_FLAGS_sse2    :=
ISA_FLAGS_generic :=

KERNEL_SOURCES := $(wildcard model/cpu/kernels/*.c)
MODEL_SOURCES  := $(filter-out model/cpu/blas_lock.c,$(wildcard model/*.c model/cpu/*.c)) $(BLAS_LOCK)
MPI_SOURCES    := $(wildcard comm/*.c)
OTHER_SOURCES  := $(wildcard data/*.c data/*/*.c checkpoints/*.c) $(filter-out trainer/main.c,$(wildcard trainer/*.c))

KERNEL_OBJECTS := $(foreach isa,$(ISAS),$(KERNEL_SOURCES:%.c=$(BUILD)/obj/%.$(isa).o))
MODEL_OBJECTS  := $(MODEL_SOURCES:%.c=$(BUILD)/obj/%.o) $(KERNEL_OBJECTS)
BASE_OBJECTS   := $(BUILD)/obj/comm/status.o $(BUILD)/obj/comm/log.o
OBJECTS        := $(MODEL_OBJECTS) $(MPI_SOURCES:%.c=$(BUILD)/obj/%.o) $(OTHER_SOURCES:%.c=$(BUILD)/obj/%.o)

# ---- plugins -------------------------------------------------------------------------------------------------------
# C++ libraries behind tables of C functions, opened when they are needed (comm/plugin.h): those whose library is here.

CXX ?= c++
PLUGINS :=
ifneq ($(shell $(PKG_CONFIG) --exists sentencepiece 2>/dev/null && echo yes),)
PLUGINS += sentencepiece
PLUGIN_FLAGS_sentencepiece = -std=c++17 $(shell $(PKG_CONFIG) --cflags sentencepiece)
PLUGIN_LIBS_sentencepiece  = $(shell $(PKG_CONFIG) --libs sentencepiece)
endif

# Arrow: the system's, or that of the pyarrow wheel in VENV, whose libraries get links beside the plugin: it then looks
# for them where it lies, here and installed. No plugin where Arrow does not fit the compiler.
VENV ?= build/venv
export VENV
ifneq ($(shell $(PKG_CONFIG) --exists arrow parquet 2>/dev/null && echo yes),)
PARQUET_CFLAGS := $(shell $(PKG_CONFIG) --cflags arrow parquet | sed 's/-I/-isystem /g')
PARQUET_LIBS   := $(shell $(PKG_CONFIG) --libs arrow parquet) -Wl,-rpath,$(shell $(PKG_CONFIG) --variable=libdir parquet)
else
ARROW          := $(abspath $(firstword $(wildcard $(VENV)/lib*/python3*/site-packages/pyarrow)))
PARQUET_CFLAGS := -isystem $(ARROW)/include
ARROW_FILES    := $(if $(ARROW),$(wildcard $(ARROW)/libparquet.so.* $(ARROW)/libarrow.so.*))
PARQUET_LIBS   := $(ARROW_FILES) -Wl,-rpath,'$$ORIGIN'
endif
ifneq ($(filter-out -Wl%,$(PARQUET_LIBS)),)
PLUGINS += $(patsubst data/plugins/%.cpp,%,$(wildcard data/plugins/parquet.cpp))
PLUGIN_FLAGS_parquet = $(shell cat $(BUILD)/plugins/parquet.flags) $(PARQUET_CFLAGS)
PLUGIN_LIBS_parquet  = $(PARQUET_LIBS)
PLUGIN_IF_parquet    = [ ! -s $(BUILD)/plugins/parquet.flags ] ||
endif

$(BUILD)/plugins/parquet.so: $(BUILD)/plugins/parquet.flags
$(BUILD)/plugins/parquet.flags: data/plugins/parquet_flags.sh $(BUILD)/compiled_by $(wildcard $(ARROW)/include/arrow/util/config.h)
	@mkdir -p $(@D)
	@data/plugins/parquet_flags.sh "$(CXX)" "$(PARQUET_CFLAGS)" "$(filter-out -Wl%,$(PARQUET_LIBS))" >$@ || \
	    echo "make: Arrow does not fit $(CXX): no Parquet files are read in this build"
	@for file in $(ARROW_FILES); do ln -sf $$file $(@D)/; done

$(BUILD)/plugins/%.so: data/plugins/%.cpp data/plugins/%.h $(BUILD)/compiled_by
	@mkdir -p $(@D)
	$(PLUGIN_IF_$*) $(CXX) -I. -Wall -Wextra -Wshadow -O2 -g -fPIC -shared -fvisibility=hidden $(PLUGIN_FLAGS_$*) -o $@ $< $(PLUGIN_LIBS_$*)

# ---- CUDA ----------------------------------------------------------------------------------------------------------
# Where nvcc is, model/cuda/ becomes a plugin too. Files named *_sm80.cu and *_sm90.cu are built for that chip alone,
# others for both, and as PTX for later ones. The CUDA runtime is linked statically: the plugin opens where there is no
# driver, and says so.

NVCC       ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
NVCC_FLAGS ?= -O3 --expt-relaxed-constexpr -lineinfo
CUDA_SOURCES := $(wildcard model/cuda/*.cu)
SM_80 := -gencode arch=compute_80,code=sm_80
SM_90 := -gencode arch=compute_90a,code=sm_90a
CHIPS = $(if $(findstring _sm80,$<),$(SM_80),$(if $(findstring _sm90,$<),$(SM_90),$(SM_80) $(SM_90) -gencode arch=compute_90,code=compute_90))
ifneq ($(NVCC),)
PLUGINS += cuda
endif

# ptxas's account of each kernel, with its release, stays beside the object: make gpu-report.
PTXAS_LOGS := $(if $(NVCC),$(CUDA_SOURCES:%.cu=$(BUILD)/obj/%.cuda.ptxas))
$(BUILD)/obj/model/cuda/%.cuda.o $(BUILD)/obj/model/cuda/%.cuda.ptxas: model/cuda/%.cu $(BUILD)/compiled_by
	@mkdir -p $(@D)
	$(NVCC) -std=c++17 -I. $(NVCC_FLAGS) $(CHIPS) -Xptxas -v -Xcompiler -fPIC,-fvisibility=hidden -MMD -MF $(basename $@).d \
	    -c -o $(basename $@).o $< 2>$(basename $@).log || { cat $(basename $@).log >&2; exit 1; }
	@grep -vE '^(ptxas info| )' $(basename $@).log >&2 || :
	@$(NVCC) --version | grep release >>$(basename $@).log
	@mv $(basename $@).log $(basename $@).ptxas

$(BUILD)/plugins/cuda.so: $(CUDA_SOURCES:%.cu=$(BUILD)/obj/%.cuda.o)
	@mkdir -p $(@D)
	$(NVCC) -shared -cudart static -o $@ $^ -ldl

# ---- targets -------------------------------------------------------------------------------------------------------
# The first make installs what is missing; a second one, which then finds the libraries, does the work: on all cores,
# unless -j says how many.

.DEFAULT_GOAL := all
.SECONDARY:
.PHONY: all deps install demo test test-emulation gpu-report gpu-test gpu-bench test-slow test-slurm fault fuzz bench bench-scaling lint sanitize clean help
ifneq ($(filter skip,$(DEPS) $(deps)),)
deps_for = @:
else
deps_for = @MPICC="$(MPICC)" PKG_CONFIG="$(PKG_CONFIG)" CC="$(CC)" BLAS_LIBS="$(if $(BLAS_LOCK),,$(BLAS_LIBS))" launch/deps.sh
endif
AGAIN = @+$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

all: ## build/lazytrain (the default)
	$(deps_for) build
	$(AGAIN) build-program

deps: ## install what is missing through apt-get (DEPS=skip: never)
	$(deps_for) build test

install: all ## to PREFIX (default /usr/local)
	install -D -m 755 $(BUILD)/lazytrain $(DESTDIR)$(PREFIX)/bin/lazytrain
	@for file in $(BUILD)/plugins/*.so*; do \
	    [ ! -e "$$file" ] || install -D -m 755 "$$file" "$(DESTDIR)$(PREFIX)/lib/lazytrain/$$(basename "$$file")" || exit 1; \
	done

demo: ## train a small model on this repository's own text, interrupt and resume it (TEXT=FILE, CONFIG=YAML, SET="KEY=VALUE...", DIR=FOLDER)
	$(deps_for) build
	$(AGAIN) build-program
	@LAZYTRAIN=$(BUILD)/lazytrain CONFIG="$(CONFIG)" SET="$(SET)" DIR="$(DIR)" launch/demo.sh $(if $(TEXT),"$(TEXT)")

test: ## all tests but the slow ones (SUITES="unit emulation mpi cli fault", TEST_ONLY=name)
	$(deps_for) build test
	$(AGAIN) build-tests
	@tests/run.sh $(BUILD) $(or $(SUITES),unit emulation mpi cli fault)

test-emulation: ## the GPU's kernels, run on the host
	$(deps_for) build test
	$(AGAIN) build-emulation
	@tests/run.sh $(BUILD) emulation

gpu-report: ## registers, shared memory and spills of each kernel on each chip (needs nvcc, no GPU)
	@[ -n "$(NVCC)" ] || { echo "make gpu-report needs nvcc: put it in PATH or name it in NVCC" >&2; exit 2; }
	$(AGAIN) $(PTXAS_LOGS)
	@tests/gpu/report.sh $(PTXAS_LOGS)

gpu-test: ## the kernels and the model on the first GPU here, built by nvcc alone; results to build/gpu-test.json
	@[ -n "$(NVCC)" ] || { echo "make gpu-test needs nvcc: put it in PATH or name it in NVCC" >&2; exit 2; }
	$(AGAIN) run-gpu-tests

gpu-bench: ## attention, matrix products and whole steps on the first GPU here; results to build/gpu-bench.json
	@[ -n "$(NVCC)" ] || { echo "make gpu-bench needs nvcc: put it in PATH or name it in NVCC" >&2; exit 2; }
	$(AGAIN) run-gpu-bench

test-slurm: ## the launch scripts on a SLURM that the test starts (as root)
	$(deps_for) build test slurm
	$(AGAIN) build-program
	@tests/run.sh $(BUILD) slurm

test-slow: ## the slow tests, and `make fault` (SHARE=N: one of N cases of the long ones)
	$(deps_for) build test
	$(AGAIN) build-tests
	@$(CAMPAIGN) tests/run.sh $(BUILD) slow fault

fault: ## the fault campaign: one job that is struck FAULTS=100 times and resumed; power cuts (SEED=N draws the same again)
	$(deps_for) build test
	$(AGAIN) build-faults
	@$(CAMPAIGN) tests/run.sh $(BUILD) fault
CAMPAIGN = SHARE=$(or $(SHARE),1) FAULTS=$(or $(FAULTS),100) RUNS=$(or $(RUNS),50) TEST_TIMEOUT=$(or $(TEST_TIMEOUT),7200)

fuzz: ## fuzzes the reading of checkpoints, documents and tokenizers, with clang: FUZZ_SECONDS=60
	$(deps_for) build fuzz
	$(AGAIN) run-fuzz

bench: ## speed, as shares of sgemm measured beside it
	$(deps_for) build test
	$(AGAIN) run-bench

bench-scaling: ## two ranks, on one host and on two with a link of 1 Gbit/s, against one rank with as many cores
	$(deps_for) build
	$(AGAIN) build-program
	@LAZYTRAIN=$(BUILD)/lazytrain tests/bench/scaling.sh

lint: ## clang-format, clang-tidy, cppcheck, shellcheck
	$(deps_for) build test lint
	$(AGAIN) run-lint

sanitize: ## unit and MPI tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(deps_for) build test
	$(AGAIN) BUILD=$(BUILD)/sanitize NVCC= SUITES="$(or $(SUITES),unit mpi)" OPTIMISE=-O1 SANITIZE="-fsanitize=address,undefined -fno-omit-frame-pointer" build-tests
	@. tests/sanitizers.sh && tests/run.sh $(BUILD)/sanitize $(or $(SUITES),unit mpi)

clean: ## remove everything that was built, and the demo
	rm -rf $(BUILD) demo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 21

# ---- how things are built ------------------------------------------------------------------------------------------

.PHONY: build-program
build-program: $(BUILD)/lazytrain $(PLUGINS:%=$(BUILD)/plugins/%.so)

# Plugins report errors by the program's own lt_fail().
$(BUILD)/lazytrain: $(BUILD)/obj/trainer/main.o $(BUILD)/liblazytrain.a
	$(MPICC) $(ALL_CFLAGS) -Wl,--export-dynamic-symbol=lt_fail -o $@ $(call link,$^ $(LIBS))

# Everything but main(); a test takes from it what it needs.
$(BUILD)/liblazytrain.a: $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^

# Another compiler, MPI or flag: everything is compiled anew.
COMPILED_BY := $(MPICC) $(CC) $(CXX) $(NVCC) $(ALL_CFLAGS)
.PHONY: force
$(BUILD)/compiled_by: force
	@mkdir -p $(@D)
	@echo '$(COMPILED_BY)' | cmp -s - $@ || echo '$(COMPILED_BY)' >$@

define compile_kernel
$(BUILD)/obj/model/cpu/kernels/%.$(1).o: model/cpu/kernels/%.c $(BUILD)/compiled_by
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) $$(ISA_FLAGS_$(1)) -DLT_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call compile_kernel,$(isa))))

$(BUILD)/obj/model/cpu/gemm.o: EXTRA := $(BLAS_CFLAGS)
$(BUILD)/obj/checkpoints/%.o: EXTRA := $(HDF5_CFLAGS)

$(BUILD)/obj/comm/%.o $(BUILD)/obj/tests/mpi/%.o $(BUILD)/obj/tests/bench/%.o: COMPILER := $(MPICC)
COMPILER = $(CC)

$(BUILD)/obj/%.o: %.c $(BUILD)/compiled_by
	@mkdir -p $(@D)
	$(COMPILER) $(ALL_CFLAGS) $(EXTRA) -MMD -MP -c -o $@ $<

$(BUILD)/obj/trainer/version.o: EXTRA := -DLT_VERSION='"$(VERSION)"' -DLT_COMMIT='"$(COMMIT)"' -DLT_BUILD_OPTIONS='"$(strip $(OPTIMISE) $(SANITIZE) $(ISAS))"'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

include tests/targets.mk
include tests/gpu/targets.mk
include tests/emulation/targets.mk
