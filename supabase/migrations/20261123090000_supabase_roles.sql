-- The roles that a Supabase project has, and auth.uid(), for a Postgres that is none: made only where they are absent, so
-- that policies can name them everywhere. Nobody logs in as one.
-- A running older version sees no difference.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
    -- Roles belong to the whole cluster: another database's migration may make the same one meanwhile.
    begin
      if not exists (select from pg_roles where rolname = wanted) then
        execute format('create role %I nologin noinherit', wanted);
        execute format('grant %I to %I', wanted, current_user);
        -- Only who has the attribute may give it. Its own policies let the role do its work without, too.
        if wanted = 'service_role' and (select rolsuper or rolbypassrls from pg_roles where rolname = current_user) then
          alter role service_role bypassrls;
        end if;
      end if;
    exception
      when duplicate_object or unique_violation then null;
    end;
  end loop;
  -- In a project the schema is Supabase's own, and has the function.
  if to_regprocedure('auth.uid()') is null then
    create schema if not exists auth;
    grant usage on schema auth to anon, authenticated, service_role;
    execute $uid$
      create function auth.uid() returns uuid language sql stable set search_path = '' return coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
      )::uuid
    $uid$;
    grant execute on function auth.uid() to anon, authenticated, service_role;
  end if;
end
$$;

grant usage on schema public, extensions to anon, authenticated, service_role;
