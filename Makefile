# Makefile: what people type. The build itself is CMake's (CMakePresets.json has the same builds by name).
#   make            build/tenon                   make test         everything that needs no GPU
#   make demo       a fine-tune in a minute       make test-long    the slow tests too
#   make cuda       the GPU backend               make test-cuda    its tests, on a machine with a GPU
#   make sanitize   the tests under ASan, UBSan   make test-real    a real model on real data
#   make fuzz       fuzzers of the parsers (clang), FUZZ_SECONDS each
#   make bench      timings                       make install      PREFIX and DESTDIR are honoured
#   make deps       installs what is missing      make format | lint | check-includes
#   make demo-real  the demo with SmolLM2-135M    make demo-model the embedded model, made anew
#   make bench-tokenizer   load time and MB/s of tokenizers      pip install ./python   the Python package (docs/python.md)
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
CMAKE_FLAGS ?=

BUILD := build
CONFIGURE = cmake -S . -G $$(command -v ninja >/dev/null && echo Ninja || echo "Unix Makefiles") $(CMAKE_FLAGS)
CTEST = ctest --output-on-failure --no-tests=error -j 1 --test-dir

.PHONY: all build deps demo demo-real demo-model test test-long test-real bench bench-tokenizer cuda test-cuda \
        sanitize fuzz install format format-check lint check-includes clean

all: build

deps:
	@sh scripts/deps.sh

build: deps
	@$(CONFIGURE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTENON_TESTS=OFF -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	@cmake --build $(BUILD) -j $(JOBS)

# The tests use build/tenon too, so they live in the same build with TENON_TESTS on.
test: deps
	@$(CONFIGURE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTENON_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@sh scripts/test_data.sh
	@$(CTEST) $(BUILD)

test-long: export TENON_TEST_LONG = 1
test-long: test

test-real: build
	@sh scripts/fetch_smollm2.sh
	@sh scripts/test_data.sh
	@sh tests/e2e/test_real.sh

demo: build
	@sh scripts/demo.sh

demo-real: build
	@sh scripts/fetch_smollm2.sh
	@sh scripts/demo_real.sh

# About 10 minutes on 2 cores; the result is left in build/demo-model for a look.
demo-model: build
	@cmake --build $(BUILD) --target tenon-world tenon-bpe
	@BUILD=$(BUILD) sh scripts/demo_model.sh

bench: build
	@$(BUILD)/tenon bench --model smollm2-135m --device cpu --max_length 512 --steps 5

bench-tokenizer: deps
	@$(CONFIGURE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTENON_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target tokenizer_speed
	@sh bench/tokenizer_speed.sh

# The host compiler of nvcc is left to CMake; CUDA_ARCHITECTURES narrows the build for one machine.
cuda: deps
	@$(CONFIGURE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTENON_CUDA=ON -DTENON_TESTS=OFF -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	@cmake --build $(BUILD) -j $(JOBS)

test-cuda: deps
	@$(CONFIGURE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTENON_CUDA=ON -DTENON_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@TENON_TEST_CUDA=1 $(CTEST) $(BUILD)

sanitize: deps
	@$(CONFIGURE) -B build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_SANITIZE=ON -DTENON_TESTS=ON
	@cmake --build build-asan -j $(JOBS)
	@sh scripts/test_data.sh
	@ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 $(CTEST) build-asan

fuzz: deps
	@if command -v clang >/dev/null; then \
	    $(CONFIGURE) -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_FUZZ=ON && \
	    cmake --build build-fuzz -j $(JOBS) && sh scripts/fuzz.sh; \
	else echo "make fuzz: SKIPPED, clang is missing (Debian: apt-get install clang)"; fi

install: build
	@cmake --install $(BUILD) --prefix $(PREFIX)

format:
	@sh scripts/format.sh -i

format-check:
	@sh scripts/format.sh

lint: build
	@sh scripts/lint.sh

check-includes:
	@sh scripts/check_includes.sh

clean:
	@cmake -E rm -rf build build-asan build-fuzz
