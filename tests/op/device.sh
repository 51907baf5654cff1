#!/bin/sh
# Puts what a machine with a GPU needs into DIRECTORY (default build-device, which git ignores): the GPU backend,
# its test and, where it was built, the tenon program, linked so that libc and CUDA are all they ask for.
#
#   sh tests/op/device.sh [DIRECTORY]            here; needs nvcc. WITH_TENON=1 adds tenon, the programs of tiny
#                                                goldens and adapter_gradients; CUDA_ARCHITECTURES=90 builds for one card
#   sh DIRECTORY/run test_cuda [--bench] [name]  there; finds CUDA's libraries
#   sh DIRECTORY/run tenon …
#   python3 tests/op/device_memory.py sh DIRECTORY/run tenon         the plan against the driver
#   python3 tests/parity/gpu_parity.py DIRECTORY                     Transformers + PEFT on the same card
#   TENON_TEST_DEVICE=cuda sh DIRECTORY/run test_model_golden        the tiny goldens; test_qwen2_5_vl, test_vl_generate too
set -e
to=${1:-build-device}
build=${DEVICE_BUILD:-${TMPDIR:-/tmp}/tenon-device-build}
mkdir -p "$to"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTENON_CUDA=ON \
    ${CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES} >/dev/null
ninja -C "$build" tenon-cuda >/dev/null
cp "$build/libtenon-cuda.so" "$to/"
flags="-std=c11 -O2 -fopenmp -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -Iinclude -Isrc"
gcc $flags -rdynamic -o "$to/test_cuda" tests/op/test_cuda.c src/op/ref/*.c src/op/source.c src/op/dora.c src/quant/*.c src/format/tensor.c \
    src/base/status.c src/base/mem.c src/base/dtype.c src/base/rng.c src/base/thread.c src/base/host_memory.c -ldl -lm
cp -L /usr/lib/x86_64-linux-gnu/libgomp.so.1 "$to/"
if [ -n "$WITH_TENON" ]; then
    ninja -C "$build" tenon-objects >/dev/null
    objects=$(find "$build/CMakeFiles/tenon-objects.dir" -name '*.o')
    libraries="-Wl,-Bstatic -lpcre2-8 -lutf8proc -lyajl_s -lyaml -lxxhash -lpng -ljpeg -lz -Wl,-Bdynamic -ldnnl -lm -ldl -lpthread"
    gcc $flags -rdynamic -o "$to/tenon" src/cli/*.c $objects $libraries
    gcc $flags -rdynamic -o "$to/adapter_gradients" tests/parity/adapter_gradients.c $objects $libraries
    for test in test_model_golden test_qwen2_5_vl test_vl_generate; do
        gcc $flags -rdynamic -Itests -o "$to/$test" "tests/parity/$test.c" $objects $libraries -lcmocka
    done
    for library in libdnnl.so.2 libOpenCL.so.1 libcmocka.so.0; do cp -L "/usr/lib/x86_64-linux-gnu/$library" "$to/"; done
    strip "$to/tenon" "$to/adapter_gradients" "$to"/test_model_golden "$to"/test_qwen2_5_vl "$to"/test_vl_generate
fi
cat >"$to/run" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
paths=$here
for name in libcudart.so.13 libcublasLt.so.13 libnvrtc.so.13 libcudnn.so.9 libnccl.so.2; do
    found=$(find /usr/local /usr/lib /opt -name "$name" 2>/dev/null | head -1)
    [ -n "$found" ] && paths=$paths:$(dirname "$found") || echo "run: $name was not found" >&2
done
program=$1
shift
LD_LIBRARY_PATH=$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/$program" "$@"
END
du -sh "$to"
