#!/bin/sh
# deps.sh [--ci]: makes sure that compilers and libraries are there. It looks first and costs nothing when all is; what
# is missing is installed where this user may (root, or sudo without a password), and said before it happens; otherwise
# the command to type is printed. --ci also wants the tools of the checks (clang-format, clang-tidy, xz, unzip).
set -eu

have() { command -v "$1" >/dev/null 2>&1; }
compiles() { # header, library: libraries without a pkg-config file
    printf '#include <%s>\nint main(void) { return 0; }\n' "$1" |
        ${CC:-cc} -x c - -o /dev/null -l"$2" >/dev/null 2>&1
}

missing=""
need() { missing="$missing $1"; }

have cmake || need cmake
have ninja || have make || need ninja
have "${CC:-cc}" || need compiler
have pkg-config || need pkg-config
if have pkg-config; then
    for module in libpcre2-8 libutf8proc yajl yaml-0.1 libxxhash libpng libjpeg cmocka; do
        pkg-config --exists "$module" || need "$module"
    done
else
    need "libpcre2-8 libutf8proc yajl yaml-0.1 libxxhash libpng libjpeg cmocka"
fi
if have "${CC:-cc}"; then
    compiles oneapi/dnnl/dnnl.h dnnl || compiles dnnl.h dnnl || need dnnl
else
    need dnnl
fi
if [ "${1:-}" = --ci ]; then
    for tool in clang-format clang-tidy xz unzip; do have $tool || need $tool; done
fi
[ -n "$missing" ] || exit 0

# One column a package manager: apt dnf pacman.
package() {
    case "$1:$2" in
        compiler:apt) echo build-essential ;; compiler:dnf) echo gcc gcc-c++ make ;; compiler:pacman) echo base-devel ;;
        cmake:*) echo cmake ;;
        ninja:pacman) echo ninja ;; ninja:*) echo ninja-build ;;
        pkg-config:dnf) echo pkgconf-pkg-config ;; pkg-config:pacman) echo pkgconf ;; pkg-config:*) echo pkg-config ;;
        libpcre2-8:apt) echo libpcre2-dev ;; libpcre2-8:dnf) echo pcre2-devel ;; libpcre2-8:pacman) echo pcre2 ;;
        libutf8proc:apt) echo libutf8proc-dev ;; libutf8proc:dnf) echo utf8proc-devel ;;
        libutf8proc:pacman) echo libutf8proc ;;
        yajl:apt) echo libyajl-dev ;; yajl:dnf) echo yajl-devel ;; yajl:pacman) echo yajl ;;
        yaml-0.1:apt) echo libyaml-dev ;; yaml-0.1:dnf) echo libyaml-devel ;; yaml-0.1:pacman) echo libyaml ;;
        libxxhash:apt) echo libxxhash-dev ;; libxxhash:dnf) echo xxhash-devel ;; libxxhash:pacman) echo xxhash ;;
        libpng:apt) echo libpng-dev ;; libpng:dnf) echo libpng-devel ;; libpng:pacman) echo libpng ;;
        libjpeg:apt) echo libjpeg-dev ;; libjpeg:dnf) echo libjpeg-turbo-devel ;; libjpeg:pacman) echo libjpeg-turbo ;;
        dnnl:apt) echo libdnnl-dev ;; dnnl:dnf) echo onednn-devel ;; dnnl:pacman) echo onednn ;;
        cmocka:apt) echo libcmocka-dev ;; cmocka:dnf) echo libcmocka-devel ;; cmocka:pacman) echo cmocka ;;
        clang-format:apt | clang-tidy:apt) echo "$1" ;; clang-format:dnf | clang-tidy:dnf) echo clang-tools-extra ;;
        clang-format:pacman | clang-tidy:pacman) echo clang ;;
        xz:apt) echo xz-utils ;; xz:*) echo xz ;;
        unzip:*) echo unzip ;;
    esac
}

if have apt-get; then manager=apt
elif have dnf; then manager=dnf
elif have pacman; then manager=pacman
else
    echo "tenon needs:$missing. No known package manager is here (apt, dnf, pacman): please install them by hand." >&2
    exit 1
fi
packages=""
for one in $missing; do packages="$packages $(package "$one" $manager)"; done
case $manager in
    apt) update="apt-get update"; install="apt-get install -y --no-install-recommends$packages" ;;
    dnf) update=true; install="dnf install -y$packages" ;;
    pacman) update="pacman -Sy"; install="pacman -S --needed --noconfirm$packages" ;;
esac

if [ "$(id -u)" = 0 ]; then as=""
elif have sudo && sudo -n true 2>/dev/null; then as="sudo -n"
else
    echo "tenon needs:$missing. Please install them, as root:" >&2
    [ "$update" = true ] || echo "  $update" >&2
    echo "  $install" >&2
    exit 1
fi
echo "missing:$missing"
echo "installing: $install"
if ! $as env DEBIAN_FRONTEND=noninteractive $install >/dev/null 2>&1; then # package lists may be old or absent
    $as $update >/dev/null || echo "warning: '$update' failed, trying with the lists there are" >&2
    $as env DEBIAN_FRONTEND=noninteractive $install
fi
