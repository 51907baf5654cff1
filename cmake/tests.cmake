# Threads wait passively: spinning ones starve each other where tests share the machine with something else.
# Token caches stay in the build folder.
# Every tests/*/test_NAME.c becomes one program and one ctest of that name, run from the source folder.
pkg_check_modules(CMOCKA REQUIRED cmocka)
add_library(tenon-test-objects STATIC $<TARGET_OBJECTS:tenon-objects>)
file(GLOB TEST_SOURCES CONFIGURE_DEPENDS tests/*/test_*.c)
foreach(source ${TEST_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE include src tests)
  target_include_directories(${name} SYSTEM PRIVATE ${CMOCKA_INCLUDE_DIRS})
  target_compile_options(${name} PRIVATE -Wno-missing-prototypes)
  target_link_libraries(${name} PRIVATE tenon-test-objects ${CMOCKA_LINK_LIBRARIES} ${DEPS_LINK_LIBRARIES}
                        ${DNNL_LIBRARY} OpenMP::OpenMP_C m dl pthread)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "TENON=${CMAKE_BINARY_DIR}/tenon;TOOLS=${CMAKE_BINARY_DIR}/tools;OMP_WAIT_POLICY=passive;XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/cache" SKIP_RETURN_CODE 77)
endforeach()
foreach(test test_islands test_pretrain)
  add_dependencies(${test} tenon-world tenon-bpe)
endforeach()

# Cuts the power of a run (test_power).
add_library(power_shim SHARED tests/e2e/power_shim.c)
target_compile_options(power_shim PRIVATE -Wno-missing-prototypes -Wno-pedantic)
target_link_libraries(power_shim PRIVATE dl)
set_target_properties(power_shim PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests PREFIX ""
                      C_VISIBILITY_PRESET default)
add_dependencies(test_power power_shim)
set_property(TEST test_power APPEND PROPERTY ENVIRONMENT "POWER_SHIM=${CMAKE_BINARY_DIR}/tests/power_shim.so")

# The header, the pkg-config file and the example, as somebody outside sees them.
add_test(NAME test_install COMMAND sh tests/e2e/test_install.sh WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_install PROPERTIES ENVIRONMENT
  "BUILD=${CMAKE_BINARY_DIR};OMP_WAIT_POLICY=passive;XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/cache;SANITIZE=$<$<BOOL:${TENON_SANITIZE}>:-fsanitize=address,undefined>")

# The Python package; skipped aloud where there is no Python.
add_test(NAME test_python COMMAND sh tests/e2e/test_python.sh WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_python PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT
  "BUILD=${CMAKE_BINARY_DIR};OMP_WAIT_POLICY=passive;XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/cache;SANITIZE=$<$<BOOL:${TENON_SANITIZE}>:yes>")

# bench/tokenizer_speed.sh runs it.
add_executable(tokenizer_speed EXCLUDE_FROM_ALL bench/tokenizer_speed.c)
target_include_directories(tokenizer_speed PRIVATE include src)
target_link_libraries(tokenizer_speed PRIVATE tenon-test-objects ${DEPS_LINK_LIBRARIES} ${DNNL_LIBRARY}
                      OpenMP::OpenMP_C m dl pthread)
set_target_properties(tokenizer_speed PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
