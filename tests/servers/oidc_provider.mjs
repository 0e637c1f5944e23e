// npm oidc-provider, as its authors advise: rotation, one grant for an account and a client, requests pushed, client
// secrets in the body alone. What the tests need beside it is below /test: a client, and a person who agrees.
//
//   PORT=… node oidc_provider.mjs
import Provider from 'oidc-provider';
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';

const port = Number(process.env.PORT);
const issuer = `http://127.0.0.1:${port}`;
const clients = new Map();
const stored = new Map();

// Everything in memory, clients too, which come while it runs.
class Adapter {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { stored.set(this.key(id), payload); }
  async find(id) { return this.model === 'Client' ? clients.get(id) : stored.get(this.key(id)); }
  async findBy(name, value) {
    for (const [key, payload] of stored) {
      if (key.startsWith(`${this.model}:`) && payload[name] === value) return payload;
    }
    return undefined;
  }
  async findByUid(uid) { return this.findBy('uid', uid); }
  async findByUserCode(code) { return this.findBy('userCode', code); }
  async consume(id) { stored.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { stored.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) if (payload.grantId === grantId) stored.delete(key);
  }
}

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const provider = new Provider(issuer, {
  adapter: Adapter,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'key-1' }] },
  cookies: { keys: ['only-for-tests'] },
  scopes: ['openid', 'offline_access', 'notes:write'],
  clientAuthMethods: ['client_secret_post'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: 300, ClientCredentials: 300 },
  findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

const person = (request) => /(?:^|; )person=([^;]+)/.exec(request.headers.cookie ?? '')?.[1];

// A grant of all that is asked for; the one that the account gave this client already grows.
async function grantOf(accountId, clientId, grantId, scope) {
  const grant = (grantId && (await provider.Grant.find(grantId))) || new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(scope);
  return grant.save();
}

const server = createServer(async (request, response) => {
  try {
    const url = new URL(request.url, issuer);
    if (url.pathname === '/test/client') {
      const asked = JSON.parse(await body(request));
      clients.set(asked.client_id, {
        client_id: asked.client_id,
        client_secret: asked.client_secret,
        redirect_uris: asked.redirect_uris,
        response_types: asked.redirect_uris.length ? ['code'] : [],
        grant_types: asked.grant_types,
        token_endpoint_auth_method: 'client_secret_post',
        scope: 'openid offline_access notes:write',
      });
      return response.writeHead(204).end();
    }
    if (url.pathname === '/test/device') {
      const form = new URLSearchParams(await body(request));
      const code = await provider.DeviceCode.findByUserCode(form.get('user_code').replace(/[^A-Z0-9]/g, ''));
      const accountId = form.get('person');
      const scope = code.params.scope;
      Object.assign(code, {
        accountId, scope, grantId: await grantOf(accountId, code.clientId, undefined, scope),
        authTime: Math.floor(Date.now() / 1000),
      });
      await code.save();
      return response.writeHead(204).end();
    }
    if (url.pathname.startsWith('/interaction/')) {
      const { prompt, params, grantId } = await provider.interactionDetails(request, response);
      const accountId = person(request);
      if (prompt.name === 'login') {
        return await provider.interactionFinished(request, response, { login: { accountId } });
      }
      const given = await grantOf(accountId, params.client_id, grantId, params.scope);
      return await provider.interactionFinished(request, response, { consent: { grantId: given } }, {
        mergeWithLastSubmission: true,
      });
    }
    return await provider.callback()(request, response);
  } catch (error) {
    console.error(error);
    return response.writeHead(500).end();
  }
});
provider.on('server_error', (_ctx, error) => console.error(error));
server.listen(port, '127.0.0.1');
