# What a prefix holds, be it the Python package's folder or /usr/local/deformops: the library and the CMake package.

include(CMakePackageConfigHelpers)

set(CMAKE_INSTALL_MESSAGE LAZY)
set(config_dir share/cmake/deformops)
configure_package_config_file(cmake/deformopsConfig.cmake.in ${PROJECT_BINARY_DIR}/deformopsConfig.cmake
  INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/deformopsConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS deformops LIBRARY DESTINATION .)
install(FILES ${PROJECT_BINARY_DIR}/deformopsConfig.cmake ${PROJECT_BINARY_DIR}/deformopsConfigVersion.cmake
  DESTINATION ${config_dir})
