#!/usr/bin/env python3
"""Writes src/action/zip3.rs from the populations of three-digit ZIP codes.

    python3 tools/zip3.py zip3_census2020.tsv > src/action/zip3.rs

Input: tab-separated prefix, population (2020 Census, sum of the ZCTAs that begin so). 45 CFR 164.514(b)(2)(i)(B): the first three
digits may stand where all ZIP codes with these digits together hold more than 20,000 people.
"""
import sys

populous = set()
for line in open(sys.argv[1], encoding="ascii"):
    if not line.startswith("#"):
        prefix, people = line.split("\t")[:2]
        if int(people) > 20_000:
            populous.add(int(prefix))
print('''//! Three-digit ZIP codes of more than 20,000 people: 45 CFR 164.514(b)(2)(i)(B), 2020 Census. Written by tools/zip3.py, not by hand.
//!
//! An allow-list: what is not in it, unassigned and military prefixes among them, is `000`.

/// One row per leading digit; the place in it is the two digits behind. `#`: may stand.
#[rustfmt::skip]
pub(super) const POPULOUS: [&str; 10] = [''')
for row in range(10):
    print('    "' + "".join("#" if row * 100 + at in populous else "." for at in range(100)) + '",')
print("];")
