"""Join files, and certificates that are good when a test says."""

import subprocess

from edgemeta.gateway.enrolment import enroll_device
from edgemeta.link.trust import gateway_context

NOW = 1_790_000_000.0


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def signed(folder, start, end, name="IP:127.0.0.1", authority=None):
    """Return the context of a gateway whose certificate is good from start to end (YYYYMMDD), signed by ours."""
    authority = authority or folder
    made = folder / f"made-{start}-{end}"
    made.mkdir()
    (made / "index.txt").touch()
    (made / "serial").write_text("01")
    (made / "ca.cnf").write_text(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\npolicy=p\ndefault_md=sha256\n"
        f"x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName={name}\nbasicConstraints=CA:FALSE\n"
    )
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem", "-subj", "/CN=g"]
    openssl(made, "req", "-new", *new, "-out", "csr.pem")
    openssl(
        *(made, "ca", "-batch", "-config", "ca.cnf", "-in", "csr.pem", "-out", "cert.pem", "-notext"),
        *("-cert", authority / "ca.pem", "-keyfile", authority / "ca.key"),
        *("-startdate", f"{start}000000Z", "-enddate", f"{end}000000Z"),
    )
    return gateway_context(made / "cert.pem", made / "key.pem")


def join_file(state, port, name="cam", host="127.0.0.1", scheme="https"):
    """Return a join file, as `enroll` writes it."""
    return enroll_device(state, name, f"{scheme}://{host}:{port}", None, state.parent, NOW).path
