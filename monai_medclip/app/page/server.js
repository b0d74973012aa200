// Talking to the server: JSON in and out, errors in words, and the login that MONAI Label asks for when it is on.

const login = document.getElementById("login");
const section = document.getElementById("login-section");
let token = null; // in this page's memory only
let loggingIn = null;

/** An error whose message can be shown as it is. */
export class Told extends Error {}

/** What a route answers; asks for name and password if the server wants them. */
export async function ask(route, body, signal) {
  const isForm = body instanceof FormData;
  const options = { method: body ? "POST" : "GET", headers: {}, signal };
  if (body) options.body = isForm ? body : JSON.stringify(body);
  if (body && !isForm) options.headers["Content-Type"] = "application/json";
  for (;;) {
    if (token) options.headers.Authorization = `Bearer ${token}`;
    const response = await reached(route, options);
    if (response.status === 401) {
      await loggedIn();
      continue;
    }
    const answer = await response.json().catch(() => null);
    if (response.ok && answer !== null) return answer;
    throw new Told(answer?.detail ?? `The server answered with status ${response.status}.`);
  }
}

async function reached(route, options) {
  try {
    return await fetch(route, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Told("The server does not answer, or broke off. Is it running, and can this computer reach it?");
  }
}

/** Resolves when a token is there; one form serves all who wait. */
function loggedIn() {
  loggingIn ??= new Promise((resolve) => {
    const name = document.getElementById("username"), password = document.getElementById("password");
    section.hidden = false;
    name.focus();
    login.onsubmit = async (event) => {
      event.preventDefault();
      const error = document.getElementById("error");
      try {
        token = await fetchedToken(name.value, password.value);
      } catch (failure) {
        error.textContent = failure.message;
        name.focus();
        return;
      } finally {
        password.value = "";
      }
      error.textContent = "";
      section.hidden = true;
      loggingIn = null;
      resolve();
    };
  });
  return loggingIn;
}

async function fetchedToken(username, password) {
  const body = new URLSearchParams({ grant_type: "password", username, password });
  const response = await reached("../auth/token", { method: "POST", body });
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer?.access_token) throw new Told("Name or password are wrong, or logging in does not work.");
  return answer.access_token;
}
