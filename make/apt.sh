# shellcheck shell=bash
# Functions for fetching from Debian's archive without changing the machine's package state. make/base.sh (programs),
# make/source.sh and make/backends.sh (sources) source this file.

# Prints the Debian suites that may have a PostgreSQL major, in the order in which to try them. No suite has 16.
debian_suites() { # major
    case $1 in
    15) echo bookworm ;;
    17) echo trixie ;;
    18) echo forky sid ;;
    esac
}

# Prints the first mirror that the machine's own apt sources name, or nothing if there is none.
debian_mirror() {
    # shellcheck disable=SC2016 # the placeholder is apt's
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p
}

# Prints the machine's own sources of updates and security fixes for a suite: "URI SUITE", one per line.
debian_updates() { # suite
    local label
    for label in Debian Debian-Security; do
        # shellcheck disable=SC2016
        apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' "Label: $label"
    done | sort -u | awk -v suite="$1" 'index($2, suite "-") == 1'
}

# Creates the configuration and state of a private apt in a directory. The caller must write $1/sources.list and pass -c
# $1/conf to each program of apt. That apt considers no package installed, and writes below $1 only.
private_apt() { # directory
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    touch "$1/status"
    # The machine's own settings (a proxy, certificates) still apply; its pins, hooks and installed packages do not.
    # Only this process writes here, so apt's sandbox user needs no access.
    cat >"$1/conf" <<CONF
#clear APT::Update;
APT::Default-Release "";
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$1";
Dir::State::Lists "$1/lists";
Dir::State::Status "$1/status";
Dir::Cache "$1/cache";
CONF
}

# Prints a line for the sources.list of a private apt. Its target limits the download to the one index that is needed.
apt_source() { # deb or deb-src, URI, suite
    local index=Packages
    [ "$1" = deb ] || index=Sources
    echo "$1 [target=$index signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $2 $3 main"
}
