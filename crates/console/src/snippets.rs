//! Code snippets for a connection string. Programs read it from the environment, so that it does not end up
//! in a repository.

use domain::app::App;
use domain::connections::NewCredential;

#[derive(Debug)]
pub(crate) struct Snippet {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) text: String,
}

/// A connection string, its parts and its snippets.
#[derive(Debug)]
pub(crate) struct Revealed {
    pub(crate) string: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) sslmode: &'static str,
    /// Whether clients verify the gateway with Howdah's own CA certificate.
    pub(crate) has_ca: bool,
    pub(crate) snippets: Vec<Snippet>,
}

impl Revealed {
    pub(crate) fn of(app: &App, credential: &NewCredential) -> Self {
        let string = app.public.connection_string(&credential.user, credential.password.expose());
        Self {
            host: app.public.gateway_host.clone(),
            port: app.public.gateway_port,
            user: credential.user.clone(),
            password: credential.password.expose().to_owned(),
            sslmode: app.public.sslmode(),
            has_ca: app.needs_ca(),
            snippets: snippets(&string, app.needs_ca()),
            string,
        }
    }
}

/// The connection string for node-postgres and Prisma's adapter on it. Unlike libpq, they verify the
/// certificate under `sslmode=require`, unless `uselibpqcompat` is set (PostgreSQL, section 32.18.1). Other
/// programs refuse that parameter, so it is not part of the string itself.
fn node_string(has_ca: bool) -> &'static str {
    match has_ca {
        true => {
            "\
// Encrypted without verifying the certificate, like sslmode=require in psql. To verify it, start Node with
// NODE_EXTRA_CA_CERTS=howdah-ca.pem and use connectionString = process.env.DATABASE_URL.
const connectionString = `${process.env.DATABASE_URL}&uselibpqcompat=true`;"
        }
        false => "const connectionString = process.env.DATABASE_URL;",
    }
}

fn snippets(string: &str, has_ca: bool) -> Vec<Snippet> {
    let node_string = node_string(has_ca);
    // The string has letters, digits and URL delimiters only, so it is safe inside of double quotes in shells
    // and .env files.
    vec![
        Snippet { name: "psql", about: "In a shell", text: format!("psql \"{string}\"") },
        Snippet {
            name: ".env",
            about: "In a file that is not checked in. The programs below read it from the environment.",
            text: format!("DATABASE_URL=\"{string}\""),
        },
        Snippet {
            name: "Prisma",
            about: "In prisma.config.ts, with npm install prisma dotenv; up to version 6, url = env(\"DATABASE_URL\") in the \
                    datasource of the schema",
            text: "\
import \"dotenv/config\";
import { defineConfig, env } from \"prisma/config\";

export default defineConfig({
  schema: \"prisma/schema.prisma\",
  datasource: { url: env(\"DATABASE_URL\") },
});"
            .into(),
        },
        Snippet {
            name: "Prisma Client",
            about: "From version 7 on, with npm install @prisma/client @prisma/adapter-pg dotenv; the last import is the \
                    output of the schema's generator",
            text: format!(
                "\
import \"dotenv/config\";
import {{ PrismaPg }} from \"@prisma/adapter-pg\";
import {{ PrismaClient }} from \"./generated/prisma/client\";

{node_string}
const prisma = new PrismaClient({{ adapter: new PrismaPg({{ connectionString }}) }});
console.log(await prisma.$queryRaw`SELECT now()`);
await prisma.$disconnect();"
            ),
        },
        Snippet {
            name: "Node",
            about: "With npm install pg",
            text: format!(
                "\
import pg from \"pg\";

{node_string}
const pool = new pg.Pool({{ connectionString }});
const {{ rows }} = await pool.query(\"SELECT now()\");
console.log(rows[0]);
await pool.end();"
            ),
        },
        Snippet {
            name: "Python",
            about: "With pip install \"psycopg[binary]\"",
            text: "\
import os
import psycopg

with psycopg.connect(os.environ[\"DATABASE_URL\"]) as connection:
    print(connection.execute(\"SELECT now()\").fetchone())"
                .into(),
        },
        Snippet {
            name: "Go",
            about: "With go get github.com/jackc/pgx/v5",
            text: "\
package main

import (
\t\"context\"
\t\"fmt\"
\t\"log\"
\t\"os\"
\t\"time\"

\t\"github.com/jackc/pgx/v5\"
)

func main() {
\tctx := context.Background()
\tconnection, err := pgx.Connect(ctx, os.Getenv(\"DATABASE_URL\"))
\tif err != nil {
\t\tlog.Fatal(err)
\t}
\tdefer connection.Close(ctx)
\tvar now time.Time
\tif err := connection.QueryRow(ctx, \"SELECT now()\").Scan(&now); err != nil {
\t\tlog.Fatal(err)
\t}
\tfmt.Println(now)
}"
            .into(),
        },
        Snippet {
            name: "Rust",
            about: "With cargo add sqlx --features postgres,runtime-tokio,tls-rustls and cargo add tokio --features full",
            text: "\
use sqlx::postgres::PgPool;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&std::env::var(\"DATABASE_URL\")?).await?;
    let (one,): (i32,) = sqlx::query_as(\"SELECT 1\").fetch_one(&pool).await?;
    println!(\"{one}\");
    Ok(())
}"
            .into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_psql_and_env_snippets_contain_the_string() {
        let with: Vec<&str> = snippets("postgres://u:p@h:1/postgres", true)
            .iter()
            .filter(|snippet| snippet.text.contains("postgres://u:p@h"))
            .map(|snippet| snippet.name)
            .collect();
        assert_eq!(with, ["psql", ".env"]);
    }
}
