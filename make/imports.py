#!/usr/bin/env python3
"""Finds circles of imports between the files of a crate.

    make/imports.py FILE...        the roots of crates: src/core/lib.rs

A file imports another file if it names an item of that file: in a `use`, or in a path that begins with `crate::`,
`self::`, `super::` or the name of a child module. Declaring a child module is not an import. If a module passes on an
item of another module with `pub use`, a file that takes the item from there imports both. So a file must never import
such an item from the `mod.rs` of its own folder: it must name the file that defines the item.

Prints the shortest circle of each group of files that import each other, and fails if there is one.
"""

import re
import sys
from pathlib import Path

NOISE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'""", re.S | re.X
)
MODULE = re.compile(r'(?:#\[path = "([^"]+)"\]\s*)?(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;')
INNER = re.compile(r"\bmod\s+(\w+)\s*\{")
USE = re.compile(r"\buse\s+([^;]+);")
INLINE = re.compile(r"(?<![\w:])((?:crate|self|super|[a-z_]\w*)(?:::\w+)+)")


def without_noise(text):
    """Removes comments, strings and characters, which may contain anything."""
    return NOISE.sub(lambda noise: "\n" * noise.group().count("\n"), text)


def modules(file, name, found):
    """Notes the file of each module of a crate, by the path of the module: a tuple of names."""
    raw = file.read_text()
    found[name] = (file, without_noise(raw))
    folder = file.parent if file.stem == "mod" or not name else file.parent / file.stem
    # Paths of modules are strings, so they are looked up in the text with strings.
    for path, child in MODULE.findall(re.sub(r"^\s*//.*$", "", raw, flags=re.M)):
        candidates = [file.parent / path] if path else [folder / f"{child}.rs", folder / child / "mod.rs"]
        for candidate in candidates:
            if candidate.is_file():
                modules(candidate, (*name, child), found)
    return found


def blocks(text, here):
    """Splits the text of a module into its own and that of each module within it, with their paths."""
    start = INNER.search(text)
    if not start:
        return [(here, text)]
    end, depth = start.end(), 1
    while depth and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    inner = blocks(text[start.end() : end], (*here, start.group(1)))
    return blocks(text[: start.start()] + text[end:], here) + inner


def leaves(tree):
    """Returns the paths in the tree of a `use`: a::{b, c::d} has a::b and a::c::d."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        return [tree.split(" as ")[0].strip()]
    prefix, inner = tree[:brace], tree[brace + 1 : tree.rindex("}")]
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(inner):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            parts.append(inner[start:at])
            start = at + 1
    parts.append(inner[start:])
    return [prefix + leaf for part in parts if part.strip() for leaf in leaves(part)]


def target(path, here, found):
    """Returns the module that a path names an item of, or None if it belongs to another crate."""
    names = path.split("::")
    if names[0] == "crate":
        at, names = (), names[1:]
    elif names[0] == "self":
        at, names = here, names[1:]
    elif names[0] == "super":
        at = here
        while names and names[0] == "super":
            at, names = at[:-1], names[1:]
    elif (*here, names[0]) in found:
        at = here
    else:
        return None
    while names and (*at, names[0]) in found:
        at, names = (*at, names[0]), names[1:]
    while at not in found:
        # A module within a file belongs to the file.
        at = at[:-1]
    return at


def imports(found):
    """Returns the modules that each module imports."""
    edges = {}
    for module, (_, whole) in found.items():
        named = set()
        for here, text in blocks(whole, module):
            paths = [leaf for tree in USE.findall(text) for leaf in leaves(tree)]
            paths += INLINE.findall(USE.sub("", text))
            named |= {target(path, here, found) for path in paths}
        edges[module] = sorted(named - {None, module})
    return edges


def circles(edges):
    """Returns one circle for each group of modules that import each other: the shortest one."""
    paths = {start: paths_from(start, edges) for start in edges}
    told, found = set(), []
    for start in sorted(edges):
        if start in paths[start] and start not in told:
            group = [other for other in paths[start] if start in paths[other]]
            told.update(group)
            found.append(min((paths[member][member] for member in group), key=len))
    return found


def paths_from(start, edges):
    """Returns the shortest path from a module to each module that it imports, directly or through others."""
    found, todo = {}, [[start]]
    for path in todo:
        for to in edges[path[-1]]:
            if to not in found:
                found[to] = [*path, to]
                todo.append(found[to])
    return found


def main(roots):
    failed = False
    for root in roots:
        found = modules(Path(root), (), {})
        for circle in circles(imports(found)):
            print("    circle: " + " -> ".join(str(found[module][0]) for module in circle))
            failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
