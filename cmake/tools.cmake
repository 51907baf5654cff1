# tools/: the programs behind `make demo-model`; not installed, and built for that target and the tests only.
foreach(tool world bpe)
  add_executable(tenon-${tool} EXCLUDE_FROM_ALL tools/${tool}.c)
  set_target_properties(tenon-${tool} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tools)
endforeach()
# The example, so that it is checked like the rest; tests/e2e/test_install.sh builds it against an installed tenon.
add_executable(tenon-example EXCLUDE_FROM_ALL examples/finetune.c)
target_link_libraries(tenon-example PRIVATE tenon-shared)
