// openid-client against the provider service: discovery, client credentials, refresh, introspection, revocation.

import assert from 'node:assert/strict'
import * as client from 'openid-client'

const { ISSUER, CLIENT_ID, CLIENT_SECRET, AUTH_METHOD, REFRESH_TOKEN } = process.env
const methods = {
  client_secret_basic: client.ClientSecretBasic,
  client_secret_post: client.ClientSecretPost,
}

const discover = (secret) =>
  client.discovery(new URL(ISSUER), CLIENT_ID, undefined, methods[AUTH_METHOD](secret), {
    algorithm: 'oauth2',
    // The service under test is on loopback.
    execute: [client.allowInsecureRequests],
  })

const config = await discover(CLIENT_SECRET)
assert.equal(config.serverMetadata().issuer, ISSUER)
const active = async (token) => (await client.tokenIntrospection(config, token)).active

const token = await client.clientCredentialsGrant(config, { scope: 'REPO_READ' })
assert.equal(token.token_type, 'bearer')
assert.equal(token.expires_in, 3600)
assert.equal(token.scope, 'REPO_READ')
assert.equal(token.refresh_token, undefined)
assert.equal(await active(token.access_token), true)
await client.tokenRevocation(config, token.access_token)
assert.equal(await active(token.access_token), false)

const fresh = await client.refreshTokenGrant(config, REFRESH_TOKEN)
assert.notEqual(fresh.refresh_token, REFRESH_TOKEN)
assert.equal(await active(fresh.access_token), true)
const again = await client.refreshTokenGrant(config, REFRESH_TOKEN)
assert.equal(again.access_token, fresh.access_token)
await client.tokenRevocation(config, fresh.refresh_token, { token_type_hint: 'refresh_token' })
assert.equal(await active(fresh.access_token), false)

const code = async (promise) => promise.then(() => 'no error', (error) => error.error ?? error.cause?.[0]?.parameters?.error ?? error)
assert.equal(await code(client.refreshTokenGrant(config, fresh.refresh_token)), 'invalid_grant')
assert.equal(await code(client.clientCredentialsGrant(config, { scope: 'SYSTEM_ADMIN' })), 'invalid_scope')
// A 401 with a challenge is an error of its own kind in this library; its status is what counts.
const wrong = await discover('wrong')
const refused = await client.clientCredentialsGrant(wrong).catch((error) => error)
assert.equal(refused.status, 401)
console.log('ok')
