# lazytrain: pretraining of Lazy Attention models. `make help` lists the targets.
#
# Variables a user may set: MPICC, CC, NVCC, PKG_CONFIG_PATH, PREFIX, DESTDIR, BLAS_CFLAGS, BLAS_LIBS, HDF5_CFLAGS,
# HDF5_LIBS, BUILD (folder of the objects), DEPS=skip (never call apt-get).

MPICC      ?= mpicc
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

# OpenBLAS: the single-threaded build, linked statically by path (libopenblas.so.0 follows the system's alternatives).
BLAS_DIR    := $(firstword $(wildcard /usr/lib/*/openblas-serial) /usr/lib)
BLAS_LIBS   ?= $(BLAS_DIR)/libopenblas.a
BLAS_CFLAGS ?= -isystem $(patsubst /usr/lib/%/openblas-serial,/usr/include/%,$(BLAS_DIR))
HDF5_PC     := $(shell $(PKG_CONFIG) --exists hdf5-serial 2>/dev/null && echo hdf5-serial || echo hdf5)
HDF5_CFLAGS ?= $(shell $(PKG_CONFIG) --cflags $(HDF5_PC) 2>/dev/null | sed 's/-I/-isystem /g')
HDF5_LIBS   ?= $(shell $(PKG_CONFIG) --libs $(HDF5_PC) 2>/dev/null)
YAML_LIBS   ?= $(shell $(PKG_CONFIG) --libs yaml-0.1 2>/dev/null || echo -lyaml)
JSON_LIBS   ?= $(shell $(PKG_CONFIG) --libs jansson 2>/dev/null || echo -ljansson)
LIBS = $(HDF5_LIBS) $(YAML_LIBS) $(JSON_LIBS) $(BLAS_LIBS) -lm -pthread


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
MODEL_SOURCES  := $(wildcard model/*.c model/cpu/*.c)
MPI_SOURCES    := $(wildcard comm/*.c)
OTHER_SOURCES  := $(wildcard data/*.c checkpoints/*.c) $(filter-out trainer/main.c,$(wildcard trainer/*.c))

KERNEL_OBJECTS := $(foreach isa,$(ISAS),$(KERNEL_SOURCES:%.c=$(BUILD)/obj/%.$(isa).o))
MODEL_OBJECTS  := $(MODEL_SOURCES:%.c=$(BUILD)/obj/%.o) $(KERNEL_OBJECTS)
BASE_OBJECTS   := $(BUILD)/obj/comm/status.o $(BUILD)/obj/comm/log.o
OBJECTS        := $(MODEL_OBJECTS) $(MPI_SOURCES:%.c=$(BUILD)/obj/%.o) $(OTHER_SOURCES:%.c=$(BUILD)/obj/%.o)

.DEFAULT_GOAL := all
.PHONY: all clean help
.SECONDARY:

all: $(BUILD)/lazytrain

$(BUILD)/lazytrain: $(BUILD)/obj/trainer/main.o $(OBJECTS)
	$(MPICC) $(ALL_CFLAGS) -o $@ $^ $(LIBS)

define compile_kernel
$(BUILD)/obj/model/cpu/kernels/%.$(1).o: model/cpu/kernels/%.c | deps-quiet
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) $$(ISA_FLAGS_$(1)) -DLT_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call compile_kernel,$(isa))))

$(BUILD)/obj/model/cpu/gemm.o: EXTRA := $(BLAS_CFLAGS)
$(BUILD)/obj/checkpoints/%.o: EXTRA := $(HDF5_CFLAGS)

$(BUILD)/obj/comm/%.o: comm/%.c | deps-quiet
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.o: %.c | deps-quiet
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(EXTRA) -MMD -MP -c -o $@ $<

$(BUILD)/obj/trainer/version.o: EXTRA := -DLT_VERSION='"$(VERSION)"' -DLT_COMMIT='"$(COMMIT)"' -DLT_BUILD_OPTIONS='"$(strip $(OPTIMISE) $(SANITIZE) $(ISAS))"'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: deps-quiet
deps-quiet:

include tests/targets.mk

clean:
	rm -rf $(BUILD)
