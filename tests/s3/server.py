"""A bucket behind S3's protocol, over TLS, for the tests of backups.

Called with a certificate and its key, PEM. Writes one line of JSON: where it listens, and what opens
the bucket `kept`. Signatures and rights are checked. What it holds is in memory.
"""

import json
import os
import sys

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app

ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}

people = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
people.create_user("aws", "howdah")
people.put_user_policy("howdah", "all", json.dumps(ALL))
key = people.create_access_key("howdah")
s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("kept", "us-east-1")

server = Server(("127.0.0.1", 0), DomainDispatcherApplication(create_backend_app), numthreads=16)
server.ssl_adapter = BuiltinSSLAdapter(sys.argv[1], sys.argv[2])
server.prepare()
print(json.dumps({"port": server.bind_addr[1], "key": key.access_key_id, "secret": key.secret_access_key}), flush=True)
server.serve()
