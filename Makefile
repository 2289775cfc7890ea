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

include tests/targets.mk

.DEFAULT_GOAL := all
