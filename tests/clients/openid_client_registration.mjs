// openid-client against the registration endpoint: it registers itself with an initial access token, gets a token as
// what it has become, and is told what is wrong.

import assert from 'node:assert/strict'
import * as client from 'openid-client'

const { ISSUER, INITIAL_TOKEN, AUTH_METHOD } = process.env

const register = (metadata, initialAccessToken = INITIAL_TOKEN) =>
  client.dynamicClientRegistration(
    new URL(ISSUER),
    { grant_types: ['client_credentials'], token_endpoint_auth_method: AUTH_METHOD, scope: 'REPO_READ', ...metadata },
    AUTH_METHOD === 'client_secret_post' ? client.ClientSecretPost() : client.ClientSecretBasic(),
    {
      initialAccessToken,
      algorithm: 'oauth2',
      // The service under test is on loopback.
      execute: [client.allowInsecureRequests],
    },
  )

const config = await register({ client_name: 'CI dashboard', client_uri: 'https://ci.example.com' })
const made = config.clientMetadata()
assert.equal(config.serverMetadata().registration_endpoint, `${ISSUER}/oauth2/register`)
assert.equal(made.client_name, 'CI dashboard')
assert.equal(made.client_secret_expires_at, 0)
assert.deepEqual(made.grant_types, ['client_credentials'])
assert.equal(made.token_endpoint_auth_method, AUTH_METHOD)

const token = await client.clientCredentialsGrant(config)
assert.equal(token.scope, 'REPO_READ')
assert.equal((await client.tokenIntrospection(config, token.access_token)).active, true)

// What openid-client doesn't do itself (RFC 7592), with what it was told.
const manage = (method, body) =>
  fetch(made.registration_client_uri, {
    method,
    headers: { authorization: `Bearer ${made.registration_access_token}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  })
const read = await (await manage('GET')).json()
assert.equal(read.client_id, made.client_id)

const failure = async (promise) => promise.then(() => 'no error', (error) => error)
const refused = await failure(register({ redirect_uris: ['http://ci.example.com/cb'], grant_types: ['authorization_code'] }))
assert.equal(refused.error ?? refused.cause?.error, 'invalid_redirect_uri')
const stranger = await failure(register({}, 'no-such-token'))
assert.equal(stranger.status ?? stranger.cause?.status, 401)

assert.equal((await manage('DELETE')).status, 204)
assert.equal((await failure(client.clientCredentialsGrant(config))).status, 401)
console.log('ok')
