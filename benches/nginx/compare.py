#!/usr/bin/env python3
"""CPU per exchange of the proxy, beside nginx as a TLS proxy that looks at nothing.

Both stand before the same upstream and take the same load, in turns, in one run; what counts is the CPU time that each process used (user and
system), so a busy machine blurs it but does not turn it round. Three loads over HTTP/1.1 and HTTP/2: an answer without a pseudonym (read, nothing
to change), a record of 4 KB on its way out (every identity replaced), and the same record read by whom it is shown as it is stored.
Needs nginx and h2load. Usage: compare.py CRYPTONYM FOLDER [ROUNDS] [REQUESTS]
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

NGINX = """
daemon off; worker_processes 1; error_log {name}.err; pid {name}.pid;
events {{ worker_connections 1024; }}
http {{
  types {{ }} default_type application/fhir+json; keepalive_requests 1000000; client_body_buffer_size 64k;
  client_body_temp_path {name}.body; proxy_temp_path {name}.proxy; fastcgi_temp_path {name}.f; uwsgi_temp_path {name}.u; scgi_temp_path {name}.s;
  {body}
}}
"""

UPSTREAM = """
  access_log off;
  server {{
    listen 127.0.0.1:{upstream};
    location / {{ root {folder}; if ($request_method = POST) {{ return 201; }} rewrite ^/fhir/Basic /plain.json break; rewrite ^ /stored.json break; }}
  }}
"""

PASS = """
  access_log pass.log;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{nginx} ssl http2; ssl_certificate certs/server.pem; ssl_certificate_key certs/server-key.pem;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
"""

PROXY = """
apiVersion: cryptonym/v1
kind: Proxy
listeners: [{{ address: "127.0.0.1:{proxy}", tls: {{ cert: certs/server.pem, key: certs/server-key.pem }} }}]
admin: {{ address: "127.0.0.1:{admin}" }}
keyring: keys.yaml
routes:
  - {{ name: cloud, match: {{ path: /fhir }}, untrusted: upstream, public_base: "https://localhost:{proxy}/fhir", lossy_update: allow,
      upstream: {{ url: "http://127.0.0.1:{upstream}/fhir" }}, rules: fhir-r4-pseudonymized }}
"""


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def record():
    """About 4 KB, as a hospital sends it."""
    components = [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": f"85{n:02}-1", "display": f"Measurement number {n}"}]},
            "valueQuantity": {"value": 71.5 + n, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
        }
        for n in range(14)
    ]
    return {
        "resourceType": "Observation",
        "id": "b7e0f6c2-5f0c-4a55-9d59-3c1fb3a1f0aa",
        "identifier": [{"system": "http://hospital.example/obs", "value": "OBS-4711-0815"}],
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9", "display": "Blood pressure panel"}]},
        "subject": {"reference": "Patient/1f0a3c55-9d59-4a55-b7e0-f6c25f0c3aa1", "display": "Anna Meyer"},
        "encounter": {"reference": "Encounter/2f0a3c55-9d59-4a55-b7e0-f6c25f0c3aa2"},
        "effectiveDateTime": "2021-03-04T10:11:12+01:00",
        "issued": "2021-03-04T10:15:12.123+01:00",
        "performer": [{"reference": "Practitioner/3f0a3c55-9d59-4a55-b7e0-f6c25f0c3aa3", "display": "Dr. Ng"}],
        "component": components,
    }


def cpu(pid):
    """Ticks of a process and its children that live."""
    total = 0
    for process in [pid, *map(int, subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split())]:
        with open(f"/proc/{process}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def load(at, two, path, body, requests):
    command = ["h2load", "-n", str(requests), "-c", "16", "-t", "1", "-m", "8" if two else "1", *([] if two else ["--h1"])]
    command += ["-d", body, "-H", "content-type: application/fhir+json"] if body else []
    said = subprocess.run([*command, f"https://localhost:{at}{path}"], capture_output=True, text=True, timeout=600).stdout
    good = f"{requests} succeeded" in said and f"{requests} 2xx" in said
    if not good:
        raise SystemExit(f"not all answered: {said}")


def main():
    cryptonym, folder = (os.path.abspath(argument) for argument in sys.argv[1:3])
    rounds, requests = (int(sys.argv[at]) if len(sys.argv) > at else usual for at, usual in ((3, 7), (4, 10000)))
    for tool in ("nginx", "h2load"):
        if not shutil.which(tool):
            print(f"no {tool}")
            sys.exit(77)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    os.chmod(folder, 0o755)
    os.chdir(folder)
    ports = {name: port() for name in ("upstream", "nginx", "proxy", "admin")}
    for arguments in (["keys", "generate", "-o", "keys.yaml"], ["certs", "dev", "-o", "certs/"]):
        subprocess.run([cryptonym, *arguments], check=True, capture_output=True)
    with open("record.json", "w") as file:
        json.dump(record(), file, separators=(",", ":"))
    plain = {"resourceType": "Basic", "code": {"coding": [{"system": "http://loinc.org", "code": "1-8"}]}}
    plain["code"]["coding"] *= 80
    with open("plain.json", "w") as file:
        json.dump(plain, file, separators=(",", ":"))
    out = [cryptonym, "pseudonymize", "--rules", "fhir-r4-pseudonymized", "--keys", "keys.yaml", "-o", "stored.json", "record.json"]
    subprocess.run(out, check=True, capture_output=True)
    for name, body in (("up", UPSTREAM), ("pass", PASS)):
        with open(f"{name}.conf", "w") as file:
            file.write(NGINX.format(name=name, body=body.format(folder=folder, **ports)))
    with open("proxy.yaml", "w") as file:
        file.write(PROXY.format(**ports))
    print(f"plain {os.path.getsize('plain.json')}, record {os.path.getsize('record.json')}, stored {os.path.getsize('stored.json')} bytes")

    running = {}
    try:
        for name, command in (
            ("up", ["nginx", "-p", folder, "-c", "up.conf", "-g", "user root;"]),
            ("nginx", ["nginx", "-p", folder, "-c", "pass.conf", "-g", "user root;"]),
            ("proxy", [cryptonym, "run", "--config", "proxy.yaml"]),
        ):
            log = open(f"{name}.log", "wb")
            running[name] = subprocess.Popen(command, stdout=log, stderr=log)
        time.sleep(1.5)
        for what, path, body in (
            ("untouched", "/fhir/Basic/1", None),
            ("rewritten", "/fhir/Observation", "record.json"),
            ("read as stored", "/fhir/Observation/1", None),
        ):
            for two in (False, True):
                spent = {"nginx": [], "proxy": []}
                for _ in range(rounds + 1):
                    for side in spent:
                        before = cpu(running[side].pid)
                        load(ports[side], two, path, body, requests)
                        spent[side].append((cpu(running[side].pid) - before) / requests * 1e6)
                each = {side: statistics.median(values[1:]) for side, values in spent.items()}  # the first warms up
                ratio = statistics.median(p / n for p, n in zip(spent["proxy"][1:], spent["nginx"][1:]))
                http = "HTTP/2" if two else "HTTP/1.1"
                print(f"{what}, {http}: nginx {each['nginx']:.0f} us, cryptonym {each['proxy']:.0f} us of CPU an exchange: {ratio:.2f}x")
    finally:
        for process in running.values():
            process.terminate()


main()
