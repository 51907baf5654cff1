# The GPU backend: libtenon-cuda.so beside the program, which opens it at run time (src/op/device.c). One build
# for compute capability 8.0 and later: machine code for 8.x and 9.0, PTX of 9.0 for what comes after.
# It takes tn_fail, tn_info and the like from the program that opens it, so that there is one error message;
# what has no state of its own (dtype, files, strings, block formats) is compiled in.
if(NOT CMAKE_CUDA_COMPILER)
  find_program(TENON_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(NOT TENON_NVCC)
    message(FATAL_ERROR "TENON_CUDA: nvcc was not found; install the CUDA toolkit (13.0) or set CUDA_HOME")
  endif()
  set(CMAKE_CUDA_COMPILER ${TENON_NVCC})
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90")
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
get_filename_component(TENON_CUDA_ROOT ${CMAKE_CUDA_COMPILER} DIRECTORY)
get_filename_component(TENON_CUDA_ROOT ${TENON_CUDA_ROOT} DIRECTORY)
find_path(CUDNN_INCLUDE cudnn_graph.h HINTS ${TENON_CUDA_ROOT}/include REQUIRED)
foreach(name cudart cublasLt cudnn)
  find_library(LIBRARY_${name} NAMES ${name} HINTS ${TENON_CUDA_ROOT}/lib64 ${TENON_CUDA_ROOT}/lib REQUIRED)
endforeach()

# NCCL is opened at run time, for runs on several GPUs (src/op/cuda/nccl.c); without its header they sum over sockets.
find_path(NCCL_INCLUDE nccl.h HINTS ${TENON_CUDA_ROOT}/include)

file(GLOB TENON_CUDA_SOURCES CONFIGURE_DEPENDS src/op/cuda/*.c src/op/cuda/*.cu src/op/source.c src/op/dora.c src/quant/*.c)
add_library(tenon-cuda SHARED ${TENON_CUDA_SOURCES}
  src/base/dtype.c src/base/mem.c src/base/host_memory.c src/base/str.c src/base/file.c src/base/rng.c src/format/tensor.c)
# The warnings set for C are not nvcc's.
set_target_properties(tenon-cuda PROPERTIES COMPILE_OPTIONS "" CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY None
  BUILD_RPATH "$ORIGIN;${TENON_CUDA_ROOT}/lib64" INSTALL_RPATH "$ORIGIN;${TENON_CUDA_ROOT}/lib64")
target_compile_options(tenon-cuda PRIVATE
  $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wstrict-prototypes;-ffp-contract=off>
  $<$<AND:$<COMPILE_LANGUAGE:C>,$<BOOL:${TENON_WERROR}>>:-Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall>)
target_include_directories(tenon-cuda PRIVATE include src)
target_include_directories(tenon-cuda SYSTEM PRIVATE ${CUDNN_INCLUDE} ${TENON_CUDA_ROOT}/include)
if(NCCL_INCLUDE)
  target_include_directories(tenon-cuda SYSTEM PRIVATE ${NCCL_INCLUDE})
  target_compile_definitions(tenon-cuda PRIVATE TENON_NCCL)
endif()
target_link_libraries(tenon-cuda PRIVATE ${LIBRARY_cudart} ${LIBRARY_cublasLt} ${LIBRARY_cudnn} OpenMP::OpenMP_C m dl)
install(TARGETS tenon-cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
# Programs made after this (the tests) lend their symbols to the backend as the tenon program does.
add_link_options(-rdynamic)
