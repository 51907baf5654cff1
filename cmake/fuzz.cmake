# libFuzzer programs (clang alone): every tests/fuzz/fuzz_NAME.c with the parsers of base, format, quant, text, image, data
# and the reader of config.json, under ASan and UBSan. A build of its own (`make fuzz`): the trainer is not in it.
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "TENON_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang")
endif()
set(FUZZ_FLAGS -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all)
file(GLOB FUZZED_SOURCES CONFIGURE_DEPENDS
  src/base/*.c src/format/*.c src/quant/*.c src/text/*.c src/image/*.c src/data/*.c)
add_library(tenon-fuzzed STATIC ${FUZZED_SOURCES} src/model/arch.c src/model/module.c
  src/model/rope.c src/model/vision_arch.c)
target_include_directories(tenon-fuzzed PUBLIC include src tests)
target_include_directories(tenon-fuzzed SYSTEM PUBLIC ${DEPS_INCLUDE_DIRS})
target_compile_options(tenon-fuzzed PUBLIC ${FUZZ_FLAGS} -O1 PRIVATE -fsanitize=fuzzer-no-link)
target_link_libraries(tenon-fuzzed PUBLIC ${DEPS_LINK_LIBRARIES} OpenMP::OpenMP_C m)
target_link_options(tenon-fuzzed PUBLIC ${FUZZ_FLAGS})
file(GLOB FUZZ_SOURCES CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source ${FUZZ_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE tenon-fuzzed)
endforeach()
