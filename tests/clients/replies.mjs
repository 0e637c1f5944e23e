// openid-client, and oauth4webapi below it for keys, against the cases of a list on standard input: what becomes of
// each goes to standard output.

import { readFileSync } from 'node:fs'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'

const config = (metadata) => {
  const made = new client.Configuration(metadata, 'us', undefined, client.ClientSecretBasic('secret'))
  // The service under test is on loopback.
  client.allowInsecureRequests(made)
  return made
}

const kinds = {
  token: ({ url }) => client.refreshTokenGrant(config({ issuer: 'https://issuer.example', token_endpoint: url }), 'spent'),
  discovery: ({ url }) =>
    client.discovery(new URL(url), 'us', undefined, undefined, { execute: [client.allowInsecureRequests] }),
  jwks: ({ url, jwt }) =>
    oauth.validateJwtAccessToken(
      { issuer: 'https://issuer.example', jwks_uri: url },
      new Request('https://api.example/', { headers: { authorization: `Bearer ${jwt}` } }),
      'api',
      { [oauth.allowInsecureRequests]: true },
    ),
}

const results = []
for (const asked of JSON.parse(readFileSync(0, 'utf8'))) {
  const error = await kinds[asked.kind](asked).then(() => '', (error) => String(error?.cause?.message ?? error))
  results.push({ case: asked.case, takes: error === '', error })
}
process.stdout.write(JSON.stringify(results))
