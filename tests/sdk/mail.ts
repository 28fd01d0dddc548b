// A mail server for the tests: prints each mail as a line of JSON and delivers nothing.
//
// MAIL_PORT is the port to listen on, 0 for a free one. MAIL_CERTIFICATE and MAIL_KEY are files: with them it
// offers STARTTLS. MAIL_USER and MAIL_PASSWORD: the only login. MAIL_REFUSE: it refuses this
// recipient permanently.

import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";

import { SMTPServer, type SMTPServerOptions } from "smtp-server";

function say(event: string, facts: object = {}): void {
  console.log(JSON.stringify({ event, ...facts }));
}

function refusal(code: number, text: string): Error {
  return Object.assign(new Error(text), { responseCode: code });
}

const { MAIL_PORT, MAIL_CERTIFICATE, MAIL_KEY, MAIL_USER, MAIL_PASSWORD, MAIL_REFUSE } = process.env;
const options: SMTPServerOptions = {
  authOptional: !MAIL_USER,
  // A server that offers TLS requires it before the login.
  allowInsecureAuth: !MAIL_CERTIFICATE,
  disabledCommands: [...(MAIL_CERTIFICATE ? [] : ["STARTTLS"]), ...(MAIL_USER ? [] : ["AUTH"])],
  disableReverseLookup: true,
  onConnect(_session, next) {
    say("connect");
    next();
  },
  onAuth({ username, password }, _session, next) {
    const fits = username === MAIL_USER && password === MAIL_PASSWORD;
    say("login", { user: username, fits });
    if (fits) next(null, { user: username });
    else next(refusal(535, "5.7.8 Authentication credentials invalid"));
  },
  onMailFrom({ address }, _session, next) {
    say("from", { address });
    next();
  },
  onRcptTo({ address }, _session, next) {
    say("to", { address });
    if (address === MAIL_REFUSE) next(refusal(550, "5.1.1 Nobody here has this address"));
    else next();
  },
  onData(stream, session, next) {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      const { mailFrom, rcptTo } = session.envelope;
      say("mail", {
        from: mailFrom && mailFrom.address,
        to: rcptTo.map(({ address }) => address),
        secure: session.secure,
        user: session.user ?? null,
        greeting: session.hostNameAppearsAs,
        raw: Buffer.concat(chunks).toString("utf8"),
      });
      next();
    });
  },
};
if (MAIL_CERTIFICATE && MAIL_KEY) {
  Object.assign(options, { cert: readFileSync(MAIL_CERTIFICATE), key: readFileSync(MAIL_KEY) });
}

const server = new SMTPServer(options);
// Clients that do not trust the certificate disconnect.
server.on("error", (error) => say("fault", { message: error.message }));
server.listen(Number(MAIL_PORT ?? 0), "127.0.0.1", () => {
  say("ready", { port: (server.server.address() as AddressInfo).port });
});
