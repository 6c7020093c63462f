// A client of an issuer for Node 20 or newer, without dependencies. See README.md.

const PATH = "/api/v1/inst_access_tokens";
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;
const TOKEN = /^[\w-]+(\.[\w-]*){2,4}$/;
const PAUSE = 30; // seconds without renewals after a service has refused a new token

/** The error that this client throws. The message contains the fix, and no token or text of a response. */
export class InstAccessError extends Error {
  constructor(code, message, retryAfter = null) {
    super(message);
    this.name = "InstAccessError";
    this.code = code;
    this.retryAfter = retryAfter; // seconds, or null
  }
}

/** Gets a token, caches the token until shortly before its expiry, and renews the token once for all callers. */
export class InstAccess {
  // Private members don't appear in the output of console.log and JSON.stringify.
  #base; #origins; #accessToken; #refresh; #token = null; #renewAt = 0; #renewal = null; #notBefore = 0;
  #noRenewalBefore = 0; #lifetime; #margin; #maxWait; #timeout; #clock; #sleep;

  /**
   * @param {string} baseUrl the address of Canvas or of the issuer, such as https://canvas.example.edu
   * @param {object} options `accessToken`: an OAuth2 access token. `refresh`: a function that returns an access
   *   token. `origins`: further addresses that may receive the token. `lifetime`, `margin`, `maxWait`
   *   and `timeout`: seconds. `clock` and `sleep`: replacements for tests.
   */
  constructor(baseUrl, {
    accessToken = null, refresh = null, origins = [], lifetime = 3600, margin = Math.min(60, lifetime / 4),
    maxWait = 60, timeout = 10,
    // Date.now also advances while the machine is suspended. If the clock is set back, the age is wrong, and a 401
    // renews the token.
    clock = () => Date.now() / 1000,
    sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000)),
  } = {}) {
    if (!accessToken && !refresh) throw new InstAccessError("argument", "Pass `accessToken` or `refresh`.");
    this.#base = safeUrl(baseUrl).href.replace(/\/+$/, "");
    this.#origins = new Set([baseUrl, ...origins].map((each) => safeUrl(each).origin));
    [this.#accessToken, this.#refresh] = [accessToken && checked(accessToken), refresh];
    [this.#lifetime, this.#margin, this.#maxWait, this.#timeout] = [lifetime, margin, maxWait, timeout];
    [this.#clock, this.#sleep] = [clock, sleep];
  }

  /** Returns a valid token. Don't log the token. */
  async token() {
    if (this.#token && this.#clock() < this.#renewAt) return this.#token;
    // All callers wait for one renewal.
    this.#renewal ??= this.#renew().finally(() => { this.#renewal = null; });
    return this.#renewal;
  }

  /** Sends a request as `fetch` does, with the token. After a 401, repeats the request once with a new token. */
  async fetch(url, options = {}) {
    const origin = new URL(url).origin;
    if (!this.#origins.has(origin)) {
      throw new InstAccessError("origin", `The token is not sent to ${origin}. If this server may receive the token, ` +
        `pass origins: ["${origin}"].`);
    }
    const token = await this.token();
    const response = await send(url, options, token);
    // After a redirect to another origin, the 401 comes from a server that never received the token.
    if (response.status !== 401 || new URL(response.url).origin !== origin) return response;
    if (this.#token === token) {
      if (this.#clock() < this.#noRenewalBefore) return response;
      this.#token = null;
    }
    if (isStream(options.body)) return response;
    await response.body?.cancel();
    const repeated = await send(url, options, await this.token());
    // A further token would be refused too, and renewals would only use up the rate limit.
    if (repeated.status === 401) this.#noRenewalBefore = this.#clock() + PAUSE;
    return repeated;
  }

  async #renew() {
    let refreshed = false;
    if (!this.#accessToken) {
      this.#accessToken = checked(await this.#refresh());
      refreshed = true;
    }
    try {
      return await this.#issue();
    } catch (error) {
      if (error.code !== "access token" || !this.#refresh || refreshed) throw error;
    }
    this.#accessToken = checked(await this.#refresh());
    return this.#issue();
  }

  async #issue() {
    const deadline = this.#clock() + this.#maxWait;
    for (let attempts = 0; ; attempts += 1) {
      const delay = this.#notBefore - this.#clock();
      if (this.#notBefore > deadline) {
        throw new InstAccessError("wait", `Wait for ${Math.ceil(delay)} more seconds, then try again.`, delay);
      }
      if (delay > 0) await this.#sleep(delay);
      const askedAt = this.#clock();
      const answer = await this.#request();
      if (answer.token) {
        this.#renewAt = askedAt + this.#lifetime - this.#margin;
        this.#token = answer.token;
        return answer.token;
      }
      if (!answer.wait) throw answer.error;
      // Wait longer after each attempt, because the time in every response may be too short.
      this.#notBefore = this.#clock() + Math.max(answer.error.retryAfter ?? 0, 2 ** Math.min(attempts, 6));
    }
  }

  async #request() {
    let response, text;
    try {
      response = await fetch(this.#base + PATH, {
        method: "POST",
        headers: { Authorization: `Bearer ${this.#accessToken}`, Accept: "application/json" },
        redirect: "manual", // otherwise, another server could get the access token
        signal: AbortSignal.timeout(this.#timeout * 1000),
      });
      text = await response.text();
    } catch (error) {
      const reason = error.name === "TimeoutError" ? "didn't answer in time" : "can't be reached";
      throw new InstAccessError("unavailable", `${this.#base} ${reason}. Check the base URL, the network and the ` +
        "certificate of the server, then try again.");
    }
    const { status } = response;
    const document = parse(text);
    if ((status === 201 || status === 200) && TOKEN.test(document?.token ?? "")) return { token: document.token };
    const retryAfter = parseRetryAfter(response.headers);
    if (status === 429 || (status === 403 && text.includes("Rate Limit Exceeded"))) {
      return { wait: true, error: new InstAccessError("wait", "The rate limit is exceeded.", retryAfter) };
    }
    if (status >= 500) {
      const error = new InstAccessError("unavailable", `The issuer answered ${status}. Try again later.`, retryAfter);
      return { wait: retryAfter !== null, error };
    }
    return { error: refusal(status, document) };
  }
}

function refusal(status, document) {
  const message = Array.isArray(document?.errors) ? document.errors[0]?.message : null;
  if (status === 404 || status === 405) {
    return new InstAccessError("base url", "The issuer is not at the base URL. Leave out /api/v1.");
  }
  if (status === 401 && message === "Insufficient scopes on access token.") {
    return new InstAccessError("scope", `The access token lacks the scope url:POST|${PATH}. Authorize again with this scope.`);
  }
  if (status === 401 && message) {
    return new InstAccessError("access token", "The issuer refused the access token. Get a new access token.");
  }
  return new InstAccessError("response", `The issuer answered ${status}. Check the base URL.`);
}

function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw new InstAccessError("argument", "The base URL is not a URL.");
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && LOOPBACK.test(url.hostname))) {
    throw new InstAccessError("argument", "Use https. Only addresses of this machine may have the scheme http.");
  }
  if (url.username || url.password || url.search || url.hash || `${url.pathname}/`.includes("/api/v1/")) {
    throw new InstAccessError("argument", "Leave a user name, a query, a fragment and /api/v1 out of the base URL.");
  }
  return url;
}

function checked(accessToken) {
  if (typeof accessToken === "string" && /^[\x21-\x7e]+$/.test(accessToken)) return accessToken;
  throw new InstAccessError("argument", "The access token is empty or contains a space, a line break or another " +
    "character that a header can't contain.");
}

function send(url, options, token) {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${token}`);
  return fetch(url, { ...options, headers });
}

function isStream(body) {
  return typeof body === "object" && body !== null && (typeof body.getReader === "function" || Symbol.asyncIterator in body);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Returns the seconds in Retry-After, or null. A date is compared with the Date header of the response. */
function parseRetryAfter(headers) {
  const value = headers.get("Retry-After")?.trim() ?? "";
  if (/^\d{1,9}$/.test(value)) return Number(value);
  if (!/^[A-Z][a-z]{2}, /.test(value)) return null;
  const [until, now] = [Date.parse(value), Date.parse(headers.get("Date") ?? "")];
  return Number.isNaN(until) ? null : Math.max(0, (until - (Number.isNaN(now) ? Date.now() : now)) / 1000);
}
